"""Scores of what a pipeline generates, with all that a reward needs to know of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import AnyReward, Clips, RewardOutput, as_reward
from gtsvj_reward.sampling.pipelines import as_clips


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A reward, and what it is told of the latents that it scores."""

    reward: AnyReward
    """Anything that is called as `GTSVJReward` is."""
    space: LatentSpace
    """Of the pipeline."""
    num_frames: int
    """Frames that the pipeline was asked for."""
    fps: float | None = None
    """Frames per second, checked against the trained range if given."""
    text: TextCondition | None = None
    """Prompt embeddings, one row per clip, or one row for all."""
    texts: Sequence[str] | None = None
    """The prompts themselves, one per clip, for functions of one's own."""
    normalize: bool = True
    """By the checkpoint's statistics."""

    def scores(
        self, latents: Float[Tensor, "clip a b height width"], *, unfinished: bool = False
    ) -> Float[Tensor, " clip"]:
        """Scores of latents in the pipeline's layout; differentiable if the caller records.

        Raises:
            ValueError: what the reward raises, or scores that are not one finite number per clip.
        """
        return self.details(latents, unfinished=unfinished).rewards

    def details(
        self,
        latents: Float[Tensor, "clip a b height width"],
        names: Sequence[str] | None = None,
        *,
        unfinished: bool = False,
    ) -> RewardOutput:
        """Likewise, with what they are made of.

        Args:
            latents: in the pipeline's layout, padding included.
            names: what messages call the clips.
            unfinished: they are predictions from the middle of sampling.
        """
        text = self.text
        if text is not None and len(text.embeds) == 1:
            text = text.rows(torch.zeros(len(latents), dtype=torch.long))
        clips = Clips.of(
            as_clips(self.space, latents, self.num_frames),
            space=self.space,
            fps=self.fps,
            num_frames=self.num_frames,
            text=text,
            names=names,
        )
        clips = replace(clips, texts=self.texts, unfinished=unfinished)
        return as_reward(self.reward).score(clips, self.normalize)
