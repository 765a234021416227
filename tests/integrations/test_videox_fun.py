"""The reward of VideoX-Fun, in the steps of its `train_reward_lora.py`."""

import json
from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward.integrations.videox_fun import GTSVJVideoReward
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError
from tests.integrations.tiny import videos
from tests.tiny import clips

PROMPTS = ["a dog", "a cat"]


def built(settings, name="GTSVJVideoReward", weight_dtype=torch.float32):
    """How the script finds and builds what `--reward_fn` and `--reward_fn_kwargs` say."""
    reward_fn = SimpleNamespace(GTSVJVideoReward=GTSVJVideoReward)
    reward_fn_kwargs = json.loads(json.dumps(settings))
    loss_fn = getattr(reward_fn, name)(device="cpu", dtype=weight_dtype, **reward_fn_kwargs)
    return getattr(reward_fn, name)(device=loss_fn.scorer.reward.device, dtype=weight_dtype,
                                    **reward_fn_kwargs)  # fmt: skip


def train_step(loss_fn, handed_over, prompts=PROMPTS):
    """What the script does with a loss function: gathers both scalars, backpropagates the loss."""
    loss, reward = loss_fn(handed_over, prompts)
    for scalar in (loss, reward):
        assert scalar.repeat(len(prompts)).shape == (len(prompts),)
    loss.backward()
    return {"step_loss": loss.detach().item(), "step_reward": reward.detach().item()}


def latent_settings(saved, **changes):
    return {"judge": saved.judge, "latents_of": saved.vae, "fps": 8, **changes}


def decoded(latents):
    """A stand-in for the script's decoder: colours in [0, 1] that depend on all latents."""
    video = latents.repeat_interleave(4, dim=2)[:, :3, 3:]
    return video.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4).sigmoid()


@pytest.mark.parametrize(
    "loss", [{}, {"max_reward": 10, "loss_scale": 0.1}], ids=["unbounded", "bounded"]
)
def test_latents_give_the_reward_its_loss_and_its_gradient(saved, judge, loss):
    found, expected = (clips().requires_grad_() for _ in range(2))
    step = train_step(built(latent_settings(saved, **loss)), found.transpose(1, 2))
    scores = judge(expected)
    direct = (10 - scores).abs().mean() * 0.1 if loss else -scores.mean()
    direct.backward()
    # The scale is applied before the mean on one side and after it on the other.
    expected_step = {"step_loss": direct.item(), "step_reward": scores.mean().item()}
    assert step == pytest.approx(expected_step, rel=1e-5)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-9)
    assert expected.grad.abs().max() > 1e-6
    per_sample = built(latent_settings(saved)).get_reward(found.transpose(1, 2), PROMPTS)
    torch.testing.assert_close(per_sample, scores, rtol=0, atol=0)


def test_frames_give_gradients_through_the_encoder(saved, judge, vae):
    found, expected = (clips(height=8, width=12).requires_grad_() for _ in range(2))
    loss_fn = built({"judge": saved.judge, "encode_with": saved.vae, "fps": 8})
    step = train_step(loss_fn, decoded(found.transpose(1, 2)))
    frames = decoded(expected.transpose(1, 2)).transpose(1, 2)
    scores = judge.score_frames(frames, vae=vae, fps=8.0)
    (-scores.mean()).backward()
    assert step["step_reward"] == pytest.approx(scores.mean().item(), abs=1e-6)
    torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)
    assert expected.grad.abs().max() > 1e-7


def test_a_sampler_is_trained(saved):
    """Ten steps through a toy sampler raise the reward, as the loss of them says."""
    start = clips(1, seed=3).transpose(1, 2)
    shift = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.03)
    loss_fn, rewards = built(latent_settings(saved)), []
    for _ in range(10):
        rewards.append(train_step(loss_fn, start + shift, ["a dog"])["step_reward"])
        optimizer.step()
        optimizer.zero_grad()
    assert rewards[-1] > rewards[0] + 0.05


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"latents_of": "foreign"}, LatentSpaceError, "the latents to score are of"),
        ({"encode_with": "vae"}, ValueError, "give `latents_of`, .* not both"),
        ({"version": "v2.1"}, ValueError, r"unknown keys \['version'\]"),
        (
            {"server_url": "http://a", "judge": None},
            ValueError,
            "this host needs the judge in its own process",
        ),
        ({"loss_scale": -1}, ValueError, "`scale` must be positive"),
    ],
)
def test_settings_that_cannot_train_are_refused_before_it_starts(saved, changes, error, text):
    paths = {"foreign": saved.foreign, "vae": saved.vae}
    settings = latent_settings(saved, **{k: paths.get(v, v) for k, v in changes.items()})
    with pytest.raises(error, match=text):
        built(settings)


def test_what_cannot_be_scored_stops_the_step(saved):
    latents, frames = (
        built({"judge": saved.judge, key: saved.vae}) for key in ("latents_of", "encode_with")
    )
    with pytest.raises(LatentSpaceError, match="expected 4 latent channels on axis 1"):
        latents(videos().transpose(1, 2), PROMPTS)  # the validation hands over frames
    with pytest.raises(ValueError, match=r"expected frames \(batch, 3, time, height, width\)"):
        frames(videos()[:, 0], PROMPTS)
    with pytest.raises(ValueError, match=r"expected 4f \+ 1 frames .* got 4"):
        frames(videos(time=4).transpose(1, 2), PROMPTS)  # --num_sampled_frames=4
    with pytest.raises(GeometryError):
        frames(videos(time=1).transpose(1, 2), PROMPTS)  # --num_decoded_latents=1
