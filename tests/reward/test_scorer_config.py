"""What a host's configuration file says of a reward."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward.scorer_config import ScorerConfig, dtype_name
from tests.tiny import clips, tiny_aspect_judge, tiny_transformer


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_vae):
    folder = tmp_path_factory.mktemp("saved")
    tiny_transformer().save_pretrained(folder / "base")
    tiny_vae.save_pretrained(folder / "vae")
    type(tiny_vae).from_config({**tiny_vae.config, "scaling_factor": 0.5}).save_pretrained(
        folder / "foreign"
    )
    space = LatentSpace.from_vae(tiny_vae)
    judge = tiny_aspect_judge(base_model=str(folder / "base"), latent_space=space)
    GTSVJReward(judge).save_pretrained(folder / "judge")
    return folder


def config(folder, **changes):
    values = {"judge": str(folder / "judge"), "latents_of": str(folder / "vae"), **changes}
    return ScorerConfig.from_dict({k: v for k, v in values.items() if v is not None})


@pytest.mark.parametrize("aspects", [None, ["focus"]])
def test_a_judge_from_plain_values(folder, aspects):
    scorer = config(folder, aspects=aspects, fps=8, normalize=False).load()
    direct = GTSVJReward.from_pretrained(folder / "judge", aspects=aspects)
    found = scorer.score_latents(clips()).rewards
    torch.testing.assert_close(found, direct(clips(), normalize=False), rtol=0, atol=0)
    assert (found - direct(clips())).abs().min() > 1e-3
    assert scorer.fps == 8


def test_pixels_from_plain_values(folder):
    frames = torch.rand(2, 12, 3, 64, 96)
    scorer = config(folder, encode_with=str(folder / "vae"), latents_of=None, first_frames=9).load()
    direct = GTSVJReward.from_pretrained(folder / "judge")
    expected = direct.score_frames(frames[:, :9], vae=load_vae(str(folder / "vae")))
    torch.testing.assert_close(scorer.score_frames(frames).rewards, expected, rtol=0, atol=0)


def test_the_rest_of_the_settings_reaches_the_judge(folder):
    scorer = config(folder, weights={"clear": 2.0}, dtype="bfloat16", batch_size=3,
                    allow_untrained_geometry=True, device="cpu",
                    encode_with=str(folder / "vae"), vae_dtype="bfloat16").load()  # fmt: skip
    reward = scorer.reward
    assert reward.selection.weights == (2.0, 0.0, 0.0)
    assert next(reward.judge.backbone.base_tensors())[1].dtype == torch.bfloat16
    assert (reward.batch_size, reward.allow_untrained_geometry) == (3, True)
    assert scorer.vae.dtype == torch.bfloat16


def test_foreign_models_are_refused_at_load(folder):
    with pytest.raises(LatentSpaceError, match="the latents to score are of"):
        config(folder, latents_of=str(folder / "foreign")).load()
    with pytest.raises(LatentSpaceError, match="what the given VAE encodes to are of"):
        config(folder, encode_with=str(folder / "foreign")).load()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fsp": 8}, r"unknown keys \['fsp'\]: expected some of judge, server_url"),
        ({"judge": None}, "give `judge`, .* or `server_url`, not both"),
        ({"server_url": "http://127.0.0.1:1"}, "not both"),
        ({"latents_of": None}, "give `latents_of`"),
        ({"dtype": "float8"}, "`dtype` must be one of float32, bfloat16, float16, got 'float8'"),
        ({"vae_dtype": "double"}, "`vae_dtype` must be one of"),
        (
            {"judge": None, "server_url": "http://a", "aspects": ["clear"], "dtype": "float32"},
            "set up there: leave aspects, dtype out",
        ),
    ],
)
def test_settings_that_would_be_ignored_are_refused(folder, changes, text):
    with pytest.raises(ValueError, match=text):
        config(folder, **changes)


def test_a_server_stands_in_for_the_judge(folder, monkeypatch):
    far = GTSVJReward.from_pretrained(folder / "judge")
    asked = []

    def connect(url, *, token):
        asked.append((url, token))
        return far

    remote = {"judge": None, "server_url": "http://127.0.0.1:8000"}
    found = config(folder, **remote).load(connect).score_latents(clips())
    torch.testing.assert_close(found.rewards, far(clips()), rtol=0, atol=0)
    secret = config(folder, **remote, server_token_env="GTSVJ_TEST_TOKEN")
    with pytest.raises(ValueError, match="no variable 'GTSVJ_TEST_TOKEN'"):
        secret.load(connect)
    monkeypatch.setenv("GTSVJ_TEST_TOKEN", "secret")
    secret.load(connect)
    assert asked == [(remote["server_url"], None), (remote["server_url"], "secret")]
    with pytest.raises(ValueError, match="needs the judge in its own process"):
        config(folder, **remote).load()


def test_a_host_fills_in_what_the_settings_leave_out(folder):
    own = config(folder).on(torch.device("cpu"), torch.bfloat16, 3)
    assert (own.device, own.dtype, own.batch_size) == ("cpu", "bfloat16", 3)
    given = config(folder, device="meta", dtype="float32").on("cpu", torch.bfloat16)
    assert (given.device, given.dtype, given.batch_size) == ("meta", "float32", 8)
    far = config(folder, judge=None, server_url="http://a").on("cpu", torch.bfloat16, 3)
    assert (far.device, far.dtype, far.batch_size) == ("cpu", None, 8)


def test_keys_are_equal_for_equal_settings(folder):
    one = config(folder, weights={"clear": 1.0, "focus": 2.0})
    other = config(folder, weights={"focus": 2.0, "clear": 1.0})
    assert one.key() == other.key() != config(folder, weights={"clear": 1.0}).key()
    assert json.loads(one.key())["judge"] == str(folder / "judge")
    assert dtype_name(torch.bfloat16) == "bfloat16"
