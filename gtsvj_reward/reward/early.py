"""A reward that scores predictions from the middle of sampling by readouts of their own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from gtsvj_reward.files import whole_folder
from gtsvj_reward.judge import VideoJudge, save_judge
from gtsvj_reward.judge.rebuilt import judge_beside
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.base import Reward
from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.output import RewardOutput
from gtsvj_reward.reward.reward import GTSVJReward

REACH = 0.1
"""Largest difference in share of noise between a readout's level and the clips it scores."""


class EarlyReward(Reward):
    """A judge, and readouts of clean latents x̂₀ that were predicted at some levels of noise.

    Finished clips are scored by the judge. Predictions are scored by the readout of the nearest
    level, if there is one within `REACH`, else by the judge as well. Scores of different readouts
    are on different scales: compare those of one step.

    Args:
        reward: of finished clips.
        levels: share of noise, sigma / (alpha + sigma) -> readout; see `fit_level`.

    Raises:
        ValueError: for no levels, or shares outside 0..1.
    """

    def __init__(self, reward: GTSVJReward, levels: Mapping[float, VideoJudge]) -> None:
        if not levels or not all(0 < share <= 1 for share in levels):
            raise ValueError(
                f"expected readouts at shares of noise within (0, 1], got {sorted(levels)}"
            )
        self.reward = reward
        self.levels = {
            share: GTSVJReward(
                judge,
                batch_size=reward.batch_size,
                allow_untrained_geometry=reward.allow_untrained_geometry,
                check_statistics=reward.check_statistics,
            )
            for share, judge in sorted(levels.items())
        }
        self.__name__ = f"early_{reward.__name__}"
        self.reads_text, self.wants_text = reward.reads_text, reward.wants_text
        self.reads_image = reward.reads_image

    @property
    def scored_space(self) -> LatentSpace | None:
        """The judge's latent space."""
        return self.reward.scored_space

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """Scores by the judge, or by the readout of the level that the clips were predicted at."""
        found = None if clips.noise is None else self.at(clips.noise)
        if found is None:
            return self.reward.score(clips, normalize)
        return found.score(replace(clips, unfinished=True), normalize)

    def at(self, noise: float) -> GTSVJReward | None:
        """The readout of a share of noise; None if the nearest is too far."""
        share = min(self.levels, key=lambda level: abs(level - noise))
        return self.levels[share] if abs(share - noise) <= REACH else None

    def to(self, device: str | torch.device) -> "EarlyReward":
        """Move the judge and its readouts."""
        for reward in (self.reward, *self.levels.values()):
            reward.to(device)
        return self

    def save_levels(self, folder: str | Path) -> None:
        """Write the readouts, one checkpoint each, whole or not at all."""
        with whole_folder(Path(folder)) as part:
            for share, readout in self.levels.items():
                save_judge(readout.judge, part / f"{share:g}")

    @classmethod
    def load(cls, reward: GTSVJReward, folder: str | Path) -> "EarlyReward":
        """A judge with the readouts that `save_levels` wrote; they share its base weights."""
        paths = [path for path in Path(folder).iterdir() if path.is_dir()]
        return cls(reward, {float(path.name): judge_beside(path, reward.judge) for path in paths})
