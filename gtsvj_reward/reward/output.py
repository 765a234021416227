"""What a reward returns, and how it refuses."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


class GeometryError(ValueError):
    """A clip is longer, shorter, larger, smaller, faster or slower than those trained on."""


class NonFiniteError(ValueError):
    """A score came out as NaN or infinity."""


@dataclass(frozen=True)
class RewardOutput:
    """Scores of a batch of clips, in the order they were given; higher is better everywhere."""

    rewards: Float[Tensor, " clip"]
    """Scores, normalised by the checkpoint's mean and standard deviation if asked for; float32."""
    raw: Float[Tensor, " clip"]
    """Scores on the judge's own scale: minus the mean energy for a discriminator, the mean of the
    range-normalised aspects for an aspect judge, the preference layer's logits after stage 3, or
    the selection of aspects that the reward was made with; float32."""
    trajectory: list[Float[Tensor, " _"]]
    """Per clip, the raw score of each step; its mean is `raw`. Clips may differ in length."""
    aspects: dict[str, Float[Tensor, " clip"]] = field(default_factory=dict)
    """Aspect name -> scores on the aspect's own scale, not clipped to it; empty for a
    discriminator."""
    aspect_trajectory: list[dict[str, Float[Tensor, " _"]]] = field(default_factory=list)
    """Per clip, aspect name -> score of each step, whose mean is the clip's; empty dictionaries for
    a discriminator."""
    untrained_geometry: tuple[str | None, ...] = ()
    """Per clip, what of its geometry lies outside the trained range, or None."""
