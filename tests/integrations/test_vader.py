"""VADER's loss functions, in the steps of its `train_t2v_lora.py`."""

import pytest
import torch

from gtsvj_reward.integrations.vader import vader_loss_fn
from gtsvj_reward.reward.clip_scorer import ClipScorer
from tests.integrations.tiny import videos


def vader_step(loss_fn, batch_samples, prompts, reward_fn="vidclip", decode_frame="all"):
    """The script from decoded samples (batch, sample, colour, time, height, width) to the loss."""
    if reward_fn in ["actpred", "vidclip"]:
        assert decode_frame in ["fml", "all", "alt"]
        assert len(prompts) == 1
        assert batch_samples.shape[1] == 1
        video_frames = batch_samples.squeeze(1).permute(0, 2, 1, 3, 4)
        loss, rewards = loss_fn(video_frames, prompts[0])
    else:
        assert decode_frame not in ["fml", "all", "alt"]
        video_frames = batch_samples.permute(1, 0, 3, 2, 4, 5).squeeze(0)
        assert video_frames.shape[1] == 1
        loss, rewards = loss_fn(video_frames.squeeze(1), prompts)
    assert loss.repeat(1).shape == (1,)
    loss.backward()
    return {"step_loss": loss.detach().item(), "step_reward": rewards.detach().item()}


def samples(time=9, overshoot=0.0):
    """What VADER's decoder gives: colours around [-1, 1]."""
    return (videos(1, time) * 2 - 1).transpose(1, 2)[:, None] * (1 + overshoot)


@pytest.fixture
def scorer(judge, vae):
    return ClipScorer(judge, vae=vae, fps=8.0)


@pytest.mark.parametrize(("target", "scale"), [(None, 0.1), (5.0, 2.0)])
def test_loss_reward_and_gradient_are_those_of_the_judge(scorer, judge, vae, target, scale):
    found, expected = (samples().requires_grad_() for _ in range(2))
    step = vader_step(vader_loss_fn(scorer, target=target, scale=scale), found, ["a dog"])
    frames = (expected[:, 0].transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    scores = judge.score_frames(frames, vae=vae, fps=8.0)
    loss = scale * (-scores if target is None else (scores - target).abs()).mean()
    loss.backward()
    assert step == {"step_loss": loss.item(), "step_reward": scores.mean().item()}
    torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)
    assert expected.grad.abs().max() > 1e-7


def test_a_decoder_may_overshoot(scorer, judge, vae):
    given = samples(overshoot=0.2)
    loss, reward = vader_loss_fn(scorer)(given[:, 0].transpose(1, 2), "a dog")
    clipped = given.clamp(-1, 1)[:, 0].transpose(1, 2) / 2 + 0.5
    expected = judge.score_frames(clipped, vae=vae, fps=8.0)
    torch.testing.assert_close(reward, expected.mean())
    torch.testing.assert_close(loss, -expected.mean())


def test_sixteen_frames_are_cut_only_where_that_was_said(judge, vae, scorer):
    with pytest.raises(ValueError, match=r"expected 4f \+ 1 frames .* got 16"):
        vader_step(vader_loss_fn(scorer), samples(16), ["a dog"])
    cut = vader_loss_fn(ClipScorer(judge, vae=vae, first_frames=13))
    found = samples(16).requires_grad_()
    step = vader_step(cut, found, ["a dog"])
    expected = judge.score_frames(videos(1, 16)[:, :13], vae=vae)
    assert step["step_reward"] == pytest.approx(expected.item(), abs=1e-5)
    assert found.grad[:, :, :, 13:].abs().max() == 0 < found.grad[:, :, :, :13].abs().max()


def test_what_is_no_video_is_refused(saved, judge, scorer):
    loss_fn = vader_loss_fn(scorer)
    with pytest.raises(ValueError, match=r'one frame of each unless --reward_fn is "vidclip"'):
        vader_step(loss_fn, samples(1), ["a dog"], reward_fn="hps", decode_frame="-1")
    with pytest.raises(ValueError, match=r"expected colours in \[-1, 1\].*values up to 2"):
        vader_step(loss_fn, samples() * 255, ["a dog"])
    with pytest.raises(ValueError, match="values up to nan"):
        vader_step(loss_fn, samples() * torch.nan, ["a dog"])
    with pytest.raises(ValueError, match="give `ClipScorer` the judge's `vae`"):
        vader_loss_fn(ClipScorer(judge, space=saved.space))
    with pytest.raises(ValueError, match="`scale` must be positive"):
        vader_loss_fn(scorer, scale=0.0)
