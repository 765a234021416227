"""Readouts of predictions: fitted without labels, asked at their level alone, kept on disk."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.judge.rebuilt import judge_beside
from gtsvj_reward.reward import Clips, EarlyReward, Reward, RewardOutput
from gtsvj_reward.sampling import successive_halving
from gtsvj_reward.training.closed_form import FeatureCache, fit_level
from tests.judge.test_moment_judge import moment_judge
from tests.sampling.tiny import CALL, cogvideox, embeds
from tests.tiny import clips


def blurred(latents):
    """What a generator would predict early: smoother, and smaller."""
    return 0.5 * (latents + latents.roll(1, 3) + latents.roll(1, 4)) / 3


@pytest.fixture(scope="module")
def reward():
    judge = moment_judge()
    found = GTSVJReward(judge, check_statistics=False)
    return found.with_statistics(found(clips(8, seed=3), normalize=False), "8 clips")


@pytest.fixture(scope="module")
def readout(reward):
    finished = clips(90, seed=7) * torch.linspace(0.5, 1.5, 90).view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        scores = reward(finished)
    return fit_level(
        reward.judge,
        FeatureCache(reward.judge),
        predicted=[lambda clip=clip: clip for clip in blurred(finished)],
        scores=scores,
        groups=[str(index // 3) for index in range(90)],
    )


def test_a_readout_says_early_what_the_judge_says_of_the_finished_clip(reward, readout):
    finished = clips(40, seed=9) * torch.linspace(0.5, 1.5, 40).view(-1, 1, 1, 1, 1)
    early = GTSVJReward(readout, check_statistics=False)
    with torch.no_grad():
        expected = reward(finished)
        found = early(blurred(finished), normalize=False)
        plain = reward(blurred(finished))
    error, other = (found - expected).square().mean(), (plain - expected).square().mean()
    assert error < 0.5 * expected.var()
    assert error < other


def test_each_level_is_asked_about_its_own_predictions(reward, readout, tmp_path):
    early = EarlyReward(reward, {0.7: readout})
    latents = clips(3, seed=5)
    own = GTSVJReward(readout, check_statistics=False)
    given = Clips.of(latents)
    assert torch.equal(early(latents), reward(latents))
    assert torch.equal(early.score(replace(given, noise=0.2)).rewards, reward(latents))
    assert torch.equal(early.score(replace(given, noise=0.75)).rewards, own(latents))
    assert (own(latents) - reward(latents)).abs().min() > 1e-3
    early.save_levels(tmp_path / "levels")
    again = EarlyReward.load(reward, tmp_path / "levels")
    assert list(again.levels) == [0.7]
    assert torch.equal(again.score(replace(given, noise=0.75)).rewards, own(latents))
    with pytest.raises(FileNotFoundError, match="no judge"):
        judge_beside(tmp_path, reward.judge)
    for levels in ({}, {1.5: readout}):
        with pytest.raises(ValueError, match="shares of noise"):
            EarlyReward(reward, levels)


class Noted(Reward):
    """The mean of a clip; keeps what is said of predictions."""

    __name__ = "noted"

    def __init__(self):
        self.seen = []

    def score(self, clips, normalize=True):
        self.seen.append((clips.unfinished, clips.noise))
        found = torch.stack([clip.float().mean() for clip in clips.latents])
        return RewardOutput(rewards=found, raw=found)


def test_halving_says_what_level_of_noise_it_looks_at():
    pipe, noted = cogvideox(), Noted()
    successive_halving(
        pipe, noted, None, 3, look_at=2, finish=1, batch_size=3, **CALL, call_arguments=embeds()
    )
    pipe.scheduler.set_timesteps(CALL["num_inference_steps"])  # halving leaves the last steps
    alpha = float(pipe.scheduler.alphas_cumprod[int(pipe.scheduler.timesteps[1])]) ** 0.5
    sigma = (1 - alpha**2) ** 0.5
    assert noted.seen[0] == (True, pytest.approx(sigma / (alpha + sigma)))
    assert noted.seen[-1] == (False, None)
