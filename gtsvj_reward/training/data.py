"""Pairs of a positive and a negative clip, each drawn from (seed, epoch, index) alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from gtsvj_reward.judge import Geometry
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.perturbations import (
    GENERATED,
    MINIMUM_STEPS,
    PerturbationSampler,
    keyed_generator,
    latent_steps,
    truncated_length,
)


@dataclass(frozen=True)
class Pair:
    """A positive clip, a negative one, and what makes it negative."""

    positive: Tensor
    """Scaled latents (time, channel, height, width)."""
    negative: Tensor
    """Likewise; another size if it is a generated clip of another size."""
    kind: str
    """A perturbation, or `generated`."""
    anchor: str
    """`real`, or `generated` where a generated clip is the positive."""


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


class ContrastivePairs(Dataset[Pair]):
    """Pairs for the contrastive loss; `pairs[epoch * len(pairs) + index]` is always the same one.

    Args:
        real: real clips; one pair of each per epoch.
        generated: generated clips, possibly none.
        sampler: which negatives, how often.
        truncation: how pairs are cut. A perturbation is applied after the cut. A generated
            negative is cut to the duration of its anchor.
        seed: of every draw.

    Raises:
        ValueError: without real clips, or with clips too short to perturb, which are named.
    """

    def __init__(
        self,
        real: Sequence[ClipInfo],
        generated: Sequence[ClipInfo],
        *,
        sampler: PerturbationSampler,
        truncation: Truncation,
        seed: int,
    ) -> None:
        if not real:
            raise ValueError("no real clips to train on")
        check_lengths([*real, *generated])
        self.real, self.generated = list(real), list(generated)
        self.sampler, self.truncation, self.seed = sampler, truncation, seed

    def __len__(self) -> int:
        """Pairs of one epoch."""
        return len(self.real)

    def __getitem__(self, key: int) -> Pair:
        epoch, index = divmod(key, len(self))
        generator = keyed_generator(self.seed, epoch, index)
        draw = self.sampler.draw(generator, generated_available=bool(self.generated))
        other = int(torch.randint(max(1, len(self.generated)), (), generator=generator))
        info = self.generated[other] if draw.anchor == "generated" else self.real[index]
        keep = self.truncation.keep(info, generator)
        positive = load_clip(info.path).latents[:keep]
        if draw.kind == GENERATED:
            negative = load_clip(self.generated[other].path).latents
            if keep < info.shape[0]:
                negative = negative[: same_duration(info, keep, self.generated[other])]
        else:
            negative = self.sampler.apply(draw.kind, positive[None], generator)[0]
        return Pair(positive, negative, draw.kind, draw.anchor)


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
        order = torch.randperm(self.length, generator=keyed_generator(self.seed, epoch))
        start = epoch * self.length
        return iter([start + index for index in order.tolist()])


def collate(pairs: list[Pair]) -> dict[str, list[Tensor] | list[str]]:
    """A batch as lists, since clips may differ in size."""
    return {
        "positive": [pair.positive for pair in pairs],
        "negative": [pair.negative for pair in pairs],
        "kind": [pair.kind for pair in pairs],
        "anchor": [pair.anchor for pair in pairs],
    }


def same_duration(anchor: ClipInfo, keep: int, other: ClipInfo) -> int:
    """Latent frames of another clip that last as long as `keep` latent frames of the anchor."""
    seconds = anchor.space.video_frames(keep) / anchor.fps
    steps = latent_steps(
        max(seconds, 1 / other.fps),
        fps=other.fps,
        temporal_compression=other.space.temporal_compression,
    )
    return max(MINIMUM_STEPS, steps)


def check_lengths(infos: Sequence[ClipInfo]) -> None:
    """Refuse clips that are too short for a perturbation.

    Raises:
        ValueError: with their number and the first one.
    """
    least = MINIMUM_STEPS
    short = [info for info in infos if info.shape[0] < least]
    if short:
        raise ValueError(
            f"{len(short)} of {len(infos)} clips have fewer than {least} latent frames, which "
            f"perturbations need; the first is {short[0].path} with {short[0].shape[0]}. "
            "Encode longer clips, or leave these out"
        )


def split(
    infos: Sequence[ClipInfo], fraction: float, seed: int
) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """Clips to train on and clips held out, by a shuffle that depends on the seed alone.

    Raises:
        ValueError: if there are fewer than two clips.
    """
    if len(infos) < 2:
        raise ValueError(f"cannot hold clips out of {len(infos)}: give a held-out folder")
    order = torch.randperm(len(infos), generator=keyed_generator(seed, -1)).tolist()
    count = min(len(infos) - 1, max(1, round(fraction * len(infos))))
    held_out = set(order[:count])
    train = [info for index, info in enumerate(infos) if index not in held_out]
    return train, [infos[index] for index in sorted(held_out)]


def trained_geometry(infos: Sequence[ClipInfo], truncation: Truncation) -> Geometry:
    """Range of clips that training shows the judge, truncated ones included."""
    shortest = min(info.shape[0] for info in infos)
    if truncation.probability > 0:
        for info in infos:
            if info.space.video_frames(info.shape[0]) / info.fps >= truncation.min_seconds:
                cut = latent_steps(
                    truncation.min_seconds,
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
