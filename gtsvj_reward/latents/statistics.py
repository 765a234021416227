"""How the latents that a judge was trained on are spread, and whether others are spread alike."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

Clip = Float[Tensor, "time channel height width"]

LEAST_CLIPS = 32
"""Fewer clips say too little of how clips differ."""
LEAST_SPREAD = 0.1
"""Of a channel, between clips: means in deviations, deviations in their logarithm."""
DEVIATIONS = 3.5
"""A common factor farther from 1 than this is a sign, in deviations of the training clips' own."""
LEAST_FACTOR, LEAST_DISTANCE = math.log(1.7), 1.5
"""What is allowed in any case: a common factor, as its logarithm, and a distance. Clips may be bad:
blur alone makes latents smaller by a factor of up to 1.6 on the clips of the demo."""
MANY = 8
"""So many clips of a call average out what is particular to one of them."""
ROOM, ROOM_OF_MANY = 2.0, 1.5
"""How much farther than the farthest training clip clips may be; few generated clips, above all of
few denoising steps, are up to 1.6 times as far on the toy world, and other spaces from 1.7 on."""
FACTORS = torch.linspace(-3, 3, 241)
"""Logarithms of common factors that are tried."""


@dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """How the clips of a training set are spread, channel by channel.

    Of each clip and channel, m is the mean and l the logarithm of the standard deviation. Between
    clips both vary, and say what is usual. Clips that were multiplied by one factor exp(k) have
    l + k and m exp(k): k is fitted by least squares, and the root mean square of the z-scores that
    are left is how far the clips are from those of training. A factor near 1 cannot be told from
    content: CogVideoX-2B's 1.15 seldom can, 0.7 of the 5B often.
    """

    clips: int
    """Clips that were looked at."""
    mean: tuple[float, ...]
    """Mean of m, of each channel."""
    mean_spread: tuple[float, ...]
    """Standard deviation of m between clips."""
    log_std: tuple[float, ...]
    """Mean of l, of each channel."""
    log_std_spread: tuple[float, ...]
    """Standard deviation of l between clips."""
    factor_spread: float
    """Root mean square of k over the training clips."""
    factor: float
    """Greatest |k| of a training clip."""
    distance: float
    """Greatest distance of a training clip."""

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "LatentStatistics | None":
        """Statistics of clips; None for fewer than `LEAST_CLIPS`."""
        seen = [features(clip) for clip in clips]
        if len(seen) < LEAST_CLIPS:
            return None
        mean, log_std = (torch.stack(part).double() for part in zip(*seen, strict=True))
        known = cls(
            clips=len(seen),
            mean=tuple(mean.mean(dim=0).tolist()),
            mean_spread=tuple(mean.std(dim=0).tolist()),
            log_std=tuple(log_std.mean(dim=0).tolist()),
            log_std_spread=tuple(log_std.std(dim=0).tolist()),
            factor_spread=0.0,
            factor=0.0,
            distance=0.0,
        )
        factor, distance = known.apart(mean, log_std)
        return replace(
            known,
            factor_spread=factor.square().mean().sqrt().item(),
            factor=factor.abs().max().item(),
            distance=distance.max().item(),
        )

    def apart(
        self, mean: Float[Tensor, "clip channel"], log_std: Float[Tensor, "clip channel"]
    ) -> tuple[Float[Tensor, " clip"], Float[Tensor, " clip"]]:
        """The factor k of each clip, and how far the clip divided by exp(k) is from training."""
        usual, spread = mean.new_tensor(self.mean), mean.new_tensor(self.mean_spread)
        usual_log, spread_log = mean.new_tensor(self.log_std), mean.new_tensor(self.log_std_spread)
        spread = spread.maximum(LEAST_SPREAD * usual_log.exp())
        tried = FACTORS.to(mean)[:, None, None]
        left = ((mean * (-tried).exp() - usual) / spread) ** 2
        left = left + ((log_std - tried - usual_log) / spread_log.clamp(min=LEAST_SPREAD)) ** 2
        distance, best = (left.mean(dim=2) / 2).sqrt().min(dim=0)
        return FACTORS.to(mean)[best], distance

    def complaint(self, clips: Sequence[Clip]) -> str | None:
        """Why clips, taken together, cannot be latents like those of training; None if they can.

        Args:
            clips: finite latents of the same channels.
        """
        seen = [torch.stack(features(clip)) for clip in clips]
        if seen[0].is_meta:
            return None
        mean, log_std = torch.stack(seen).mean(dim=0).double().cpu()
        factor, distance = (part.item() for part in self.apart(mean[None], log_std[None]))
        room = ROOM if len(seen) < MANY else ROOM_OF_MANY
        farthest = max(room * self.distance, LEAST_DISTANCE)
        if distance > farthest:
            return (
                "their channels are spread otherwise than those of the "
                f"{self.clips} clips that the judge was trained on: {distance:.1f} deviations "
                f"apart, at most {farthest:.1f} expected"
            )
        most = max(DEVIATIONS * self.factor_spread, self.factor, LEAST_FACTOR)
        if abs(factor) > most:
            low, high = math.exp(-most), math.exp(most)
            return (
                f"their values are {math.exp(factor):.2g} times as large as those of the "
                f"{self.clips} clips that the judge was trained on, expected {low:.2g} to "
                f"{high:.2g} times"
            )
        return None


def features(
    clip: Clip,
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean of each channel of a clip, and the logarithm of its standard deviation."""
    values = clip.detach().float().transpose(0, 1).flatten(1)
    return values.mean(dim=1), values.std(dim=1, correction=0).clamp(min=1e-6).log()
