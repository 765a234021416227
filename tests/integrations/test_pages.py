"""The pages of the trainers: their examples run, and their settings are known."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from gtsvj_reward import GTSVJReward
from gtsvj_reward.assets import vae as assets
from gtsvj_reward.integrations import dancegrpo
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from tests.integrations.tiny import videos
from tests.tiny import clips

DOCS = Path(__file__).parents[2] / "docs"
OWN_FIELDS = {"name", "reward_model", "dtype", "batch_size", "device", "weight"}
"""What Flow-Factory keeps of an entry for itself."""


def blocks(page, language):
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def loading(judge, vae, monkeypatch):
    """Names on the pages stand for the tiny judge and its VAE."""
    monkeypatch.setattr(GTSVJReward, "from_pretrained", lambda name, device: judge)
    monkeypatch.setattr(assets, "load_vae", lambda name, device: vae)


@pytest.mark.usefixtures("loading")
def test_vader():
    names = {"accelerator": SimpleNamespace(device="cpu")}
    exec(blocks("vader", "python")[0], names)
    _, reward = names["loss_fn"](videos(1, 16) * 2 - 1, "a dog")
    assert reward.isfinite()


@pytest.mark.usefixtures("loading")
def test_fastvideo():
    student = SimpleNamespace(device="cpu")
    names = {
        "self": SimpleNamespace(student=student, _reward_fn_config={"gtsvj": 1.0}),
        "build_multi_reward_scorer": lambda config, device, scorers: scorers,
    }
    code = blocks("fastvideo", "python")[0]
    assert "fps=16.0" in code
    exec(code, names)
    scores = names["self"]._reward_scorer["gtsvj"](videos().transpose(1, 2), ["a", "b"])
    assert scores.shape == (2,)


@pytest.mark.usefixtures("loading")
def test_dancegrpo(saved, judge, monkeypatch):
    groups = {"vq": ["clear", "focus"], "mq": ["movement smoothness"]}
    whole = dancegrpo.VideoAlignReward
    monkeypatch.setattr(
        dancegrpo, "VideoAlignReward", lambda scorer, reading: whole(scorer, reading, **groups)
    )
    first, second = blocks("dancegrpo", "python")
    names = {"device": 0}
    exec(first, names)
    assert names["inferencer"].reading.num_frames == 49
    names["inferencer"] = whole(ClipScorer(judge, space=saved.space), **groups)
    scale = saved.space.scaling_factor
    names |= {
        "latents": clips().transpose(1, 2) / scale,
        "vae": SimpleNamespace(config=SimpleNamespace(scaling_factor=scale)),
    }
    exec(second, names)
    expected = judge(clips()).tolist()
    assert [row["Overall"] for row in names["reward"]] == pytest.approx(expected, abs=1e-4)


def test_the_table_of_names_is_that_of_the_code():
    page = (DOCS / "dancegrpo.md").read_text()
    for name, aspects in (
        ("`VQ`", dancegrpo.VISUAL_QUALITY),
        ("`MQ`", dancegrpo.MOTION_QUALITY),
    ):
        assert f"| {name} | {', '.join(aspects)} |" in page


def test_settings_on_the_pages_are_known():
    [kwargs] = re.findall(r"--reward_fn_kwargs='(.*)'", (DOCS / "videox_fun.md").read_text())
    [entry] = re.findall(r"reward_functions\.gtsvj=(\{.*\})\"", (DOCS / "verl_omni.md").read_text())
    entry = {k: v for k, v in yaml.safe_load(entry).items()
             if k not in {"path", "name", "weight", "required"}}  # fmt: skip
    [flow_factory] = yaml.safe_load(blocks("flow_factory", "yaml")[0])["rewards"]
    flow_factory = {k: v for k, v in flow_factory.items() if k not in OWN_FIELDS}
    recipes = [yaml.safe_load(text)["reward"] for text in blocks("unirl", "yaml")]
    services = [recipe["backend"]["config"] for recipe in recipes]
    for settings in (json.loads(kwargs), entry, flow_factory, *services):
        config = ScorerConfig.from_dict(settings)
        assert config.fps in (8, 16)
    assert yaml.safe_load(re.findall(r"required: (\w+)", (DOCS / "verl_omni.md").read_text())[0])


def test_every_setting_is_in_the_table():
    page = (DOCS / "trainers.md").read_text()
    missing = [name for name in ScorerConfig.__dataclass_fields__ if f"`{name}`" not in page]
    assert not missing
    for link in re.findall(r"\]\((\w+\.md)\)", page):
        assert (DOCS / link).is_file()


def test_latents_are_handed_over_as_the_page_says(saved, judge):
    """The line that the page puts into VideoX-Fun's script."""
    from gtsvj_reward.integrations.videox_fun import GTSVJVideoReward

    [_, line] = blocks("videox_fun", "python")
    names = {
        "loss_fn": GTSVJVideoReward(judge=saved.judge, latents_of=saved.vae),
        "latents": clips().transpose(1, 2),
        "train_prompt": ["a", "b"],
    }
    exec(line, names)
    torch.testing.assert_close(names["reward"], judge(clips()).mean())
