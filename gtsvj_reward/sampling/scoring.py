"""Scoring what a pipeline generates, with everything that a reward wants to know of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward import (
    GeometryError,
    GTSVJReward,
    NonFiniteError,
    Reward,
    RewardOutput,
)
from gtsvj_reward.reward.members import checked
from gtsvj_reward.sampling.pipelines import as_clips


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A reward, and what it is told of the latents that it scores."""

    reward: Reward
    """Anything that is called as `GTSVJReward` is."""
    space: LatentSpace
    """Of the pipeline."""
    num_frames: int
    """Frames that the pipeline was asked for."""
    fps: float | None
    """Frames per second, checked against the trained range if given."""
    text: TextCondition | None
    """Prompt embeddings, one row per clip, or one row for all."""
    normalize: bool
    """By the checkpoint's statistics."""

    def scores(self, latents: Float[Tensor, "clip a b height width"]) -> Float[Tensor, " clip"]:
        """Scores of latents in the pipeline's layout; differentiable if the caller records.

        Raises:
            ValueError: what the reward raises, or scores that are not one finite number per clip.
        """
        return self.details(latents)[0]

    def details(
        self, latents: Float[Tensor, "clip a b height width"]
    ) -> tuple[Float[Tensor, " clip"], RewardOutput | None]:
        """Likewise, with the trajectories if the reward is a `GTSVJReward`."""
        clips = as_clips(self.space, latents, self.num_frames)
        text = self.text
        if text is not None and len(text.embeds) == 1:
            text = text.rows(torch.zeros(len(clips), dtype=torch.long))
        if isinstance(self.reward, GTSVJReward):
            output = self.reward.details(
                clips,
                space=self.space,
                fps=self.fps,
                num_frames=self.num_frames,
                text=text,
                normalize=self.normalize,
            )
            return output.rewards, output
        found = self.reward(
            clips,
            space=self.space,
            fps=self.fps,
            num_frames=self.num_frames,
            text=text,
            normalize=self.normalize,
        )
        return checked("reward", found, len(clips)), None

    @torch.no_grad()
    def candidates(
        self, latents: Float[Tensor, "clip a b height width"], indices: Sequence[int]
    ) -> tuple[Float[Tensor, " clip"], RewardOutput | None]:
        """Scores on the CPU, and details, of some candidates; their numbers go into refusals."""
        try:
            scores, details = self.details(latents)
        except (LatentSpaceError, GeometryError, NonFiniteError) as error:
            numbers = ", ".join(str(index) for index in indices)
            raise type(error)(f"candidates {numbers}, as clips 0 and up: {error}") from error
        return scores.cpu(), details


def joined(outputs: Sequence[RewardOutput | None]) -> RewardOutput | None:
    """Outputs of several batches as one; None if there are none."""
    found = [output for output in outputs if output is not None]
    if not found:
        return None
    return RewardOutput(
        rewards=torch.cat([output.rewards for output in found]),
        raw=torch.cat([output.raw for output in found]),
        trajectory=[steps for output in found for steps in output.trajectory],
        aspects={
            name: torch.cat([output.aspects[name] for output in found]) for name in found[0].aspects
        },
        aspect_trajectory=[steps for output in found for steps in output.aspect_trajectory],
        untrained_geometry=tuple(note for output in found for note in output.untrained_geometry),
    )
