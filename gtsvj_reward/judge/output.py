"""Outputs of a judge."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class JudgeOutput(NamedTuple):
    """Outputs of a judge for a batch of clips or, without the first axis, for one clip."""

    scores: Float[Tensor, "..."]
    """Score of each step (batch, step), float32; high is good. Minus the energy for a
    discriminator, a weighted sum of the aspects for later stages."""
    aspects: Float[Tensor, "..."] | None
    """Range-normalised aspects (batch, step, aspect): 0 and 1 are the ends of each scale. None for
    a discriminator, and for a score that comes straight from moments."""
    leverage: Float[Tensor, "..."] | None = None
    """Posterior variance of the clip's outputs as a multiple of their noise (batch,); None for a
    judge that keeps no posterior."""

    def each(self, act: Callable[[Tensor], Tensor]) -> "JudgeOutput":
        """A function of all parts that there are."""
        return JudgeOutput(
            act(self.scores),
            None if self.aspects is None else act(self.aspects),
            None if self.leverage is None else act(self.leverage),
        )
