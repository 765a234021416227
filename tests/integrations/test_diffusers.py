"""The adapter's own example, on tiny weights; a judge that shares the generator's."""

import inspect
import textwrap

import diffusers.utils
import pytest
import torch
from diffusers import CogVideoXPipeline

from gtsvj_reward import GTSVJReward
from gtsvj_reward.integrations import diffusers as adapter
from gtsvj_reward.judge import save_judge
from gtsvj_reward.sampling import latent_space
from tests.sampling.tiny import CALL, cogvideox, embeds
from tests.tiny import tiny_judge, tiny_transformer


@pytest.fixture
def checkpoint(tmp_path):
    """A judge on disk, of the tiny pipeline's latents and on its base weights."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    judge = tiny_judge(latent_space=latent_space(cogvideox()), base_model=str(tmp_path / "base"))
    save_judge(judge, tmp_path / "judge")
    return tmp_path / "judge"


def test_best_of_n_with_a_judge_on_the_generators_own_weights(checkpoint):
    pipe = cogvideox()
    shared = GTSVJReward.from_pretrained(
        checkpoint, transformer=pipe.transformer, check_statistics=False
    )
    own = GTSVJReward.from_pretrained(checkpoint, check_statistics=False)
    call = {**CALL, "call_arguments": embeds(), "fps": 8.0}
    found = adapter.best_of_n(pipe, shared, None, 3, batch_size=2, **call)
    other = adapter.best_of_n(cogvideox(), own, None, 3, **call)
    torch.testing.assert_close(found.scores, other.scores, rtol=1e-5, atol=1e-5)
    assert found.winners == other.winners
    assert found.scores.std() > 1e-4
    shared.verify()


def test_the_example_runs(checkpoint, tmp_path, monkeypatch):
    pipe = cogvideox(text=True)
    pipe.encode_prompt = _short(pipe.encode_prompt)
    load = GTSVJReward.from_pretrained.__func__
    monkeypatch.setattr(CogVideoXPipeline, "from_pretrained", lambda *_, **__: pipe)
    monkeypatch.setattr(
        GTSVJReward,
        "from_pretrained",
        classmethod(lambda cls, *args, **given: load(cls, *args, check_statistics=False, **given)),
    )
    written = []
    monkeypatch.setattr(
        diffusers.utils, "export_to_video", lambda frames, *_, **__: written.append(frames.shape)
    )
    names = {}
    exec(_example(checkpoint), names)
    assert written == [(9, 32, 48, 3)]
    assert len(names["best"].scores) == 8
    assert len(names["guidance"].records) == 12  # the last quarter of 50 steps
    assert names["reward"].judge.backbone.live is not None


def _example(checkpoint):
    """The code in the adapter's docstring, with sizes and places for here."""
    lines = inspect.getsource(adapter).splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    code = code[: code.index("BestOfN as BestOfN")]
    for old, new in {
        '"path/to/judge"': repr(str(checkpoint)),
        "num_frames=49": "num_frames=9",
        "height=480, width=720": "height=32, width=48",
        '"cuda"': '"cpu"',
    }.items():
        assert old in code
        code = code.replace(old, new)
    return code


def _short(encode_prompt):
    """The tiny transformer takes prompts of 6 words."""

    def encode(*args, **given):
        return encode_prompt(*args, **{**given, "max_sequence_length": 6})

    return encode
