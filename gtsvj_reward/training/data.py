"""What the examples of all stages share: keys, truncation, splits, geometry."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from gtsvj_reward.judge import Geometry
from gtsvj_reward.latents.statistics import LatentStatistics
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.perturbations import (
    MINIMUM_STEPS,
    latent_steps,
    lengths_between,
    truncated_length,
)
from gtsvj_reward.random_keys import keyed_order

MOST_LOOKED_AT = 256
"""Training clips that `latent_statistics` are measured on."""


@dataclass(frozen=True)
class Truncation:
    """How often, and to what durations, pairs are cut (paper section 5.1)."""

    probability: float = 0.25
    min_seconds: float = 2.0
    max_seconds: float = 6.0

    def keep(self, info: ClipInfo, generator: torch.Generator) -> int:
        """Latent frames of a clip to keep."""
        return truncated_length(
            info.shape[0],
            fps=info.fps,
            probability=self.probability,
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            temporal_compression=info.space.temporal_compression,
            generator=generator,
        )


class EpochKeys(Sampler[int]):
    """Keys of `ContrastivePairs` in an order that depends on (seed, epoch) alone.

    Args:
        length: pairs of one epoch.
        seed: of the order.
        epoch: tells the epoch when an iteration begins. It is asked, not told: data loaders that
            skip batches when a run is resumed lose what a sampler was told.
    """

    def __init__(self, length: int, seed: int, epoch: Callable[[], int]) -> None:
        self.length, self.seed, self.epoch = length, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        order = keyed_order(self.length, self.seed, epoch)
        start = epoch * self.length
        return iter([start + index for index in order])


def same_duration(anchor: ClipInfo, keep: int, other: ClipInfo) -> int:
    """Latent frames of another clip that last as long as `keep` latent frames of the anchor."""
    seconds = anchor.space.video_frames(keep) / anchor.fps
    steps = latent_steps(
        max(seconds, 1 / other.fps),
        fps=other.fps,
        temporal_compression=other.space.temporal_compression,
    )
    return max(MINIMUM_STEPS, steps)


def trained_statistics(infos: Sequence[ClipInfo]) -> LatentStatistics | None:
    """How the latents of training clips are spread; of at most 256 of them, evenly chosen."""
    step = -(-len(infos) // MOST_LOOKED_AT)
    return LatentStatistics.of(load_clip(info.path).latents for info in infos[::step])


def trained_geometry(infos: Sequence[ClipInfo], truncation: Truncation) -> Geometry:
    """Range of clips that training shows the judge, truncated ones included."""
    shortest = min(info.shape[0] for info in infos)
    if truncation.probability > 0:
        for info in infos:
            if info.space.video_frames(info.shape[0]) / info.fps >= truncation.min_seconds:
                cut, _ = lengths_between(
                    truncation.min_seconds,
                    truncation.max_seconds,
                    fps=info.fps,
                    temporal_compression=info.space.temporal_compression,
                )
                shortest = min(shortest, max(cut, 3))
    heights, widths = [i.shape[2] for i in infos], [i.shape[3] for i in infos]
    rates = [info.fps for info in infos]
    return Geometry(
        latent_frames=(shortest, max(info.shape[0] for info in infos)),
        height=(min(heights), max(heights)),
        width=(min(widths), max(widths)),
        fps=(min(rates), max(rates)),
    )
