"""Labelled clips as examples, each drawn from (seed, epoch, index) alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.files import file_sha256
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.perturbations import keyed_generator
from gtsvj_reward.training.data import Truncation, same_duration


@dataclass(frozen=True)
class RatedClip:
    """A clip and what people said of it."""

    info: ClipInfo
    """Where its latents are."""
    scores: Mapping[str, float]
    """Aspect -> label on the aspect's own scale; missing ones are left out."""
    row: str
    """Row of the file, for messages."""


@dataclass(frozen=True)
class ClipPair:
    """Two clips and which of them people preferred."""

    first: ClipInfo
    second: ClipInfo
    label: int
    """+1: the first is better; -1: the second; 0: the same."""
    row: str
    """Row of the file, for messages."""


@dataclass(frozen=True)
class RatedExample:
    """One clip of a batch."""

    latents: Tensor
    """(time, channel, height, width)."""
    target: Tensor
    """Range-normalised labels (aspect,); NaN where there is none."""


@dataclass(frozen=True)
class PairExample:
    """One pair of a batch."""

    first: Tensor
    """Latents (time, channel, height, width)."""
    second: Tensor
    """Likewise."""
    label: int
    """+1, 0 or -1."""


class RatedClips(Dataset[RatedExample]):
    """Rated clips; `clips[epoch * len(clips) + index]` is always the same one.

    Args:
        clips: what was rated.
        aspects: what the judge predicts; labels of other aspects are not used.
        truncation: how clips are cut.
        seed: of every draw.

    Raises:
        ValueError: without clips, for a clip without any label, a label outside its scale, or an
            aspect that no clip has.
    """

    def __init__(
        self,
        clips: Sequence[RatedClip],
        aspects: Sequence[Aspect],
        *,
        truncation: Truncation,
        seed: int,
    ) -> None:
        if not clips:
            raise ValueError("no rated clips to train on")
        _, bare = with_labels(clips, aspects)
        if bare:
            raise ValueError(f"{bare} of {len(clips)} clips have no label of any aspect")
        self.clips, self.truncation, self.seed = list(clips), truncation, seed
        self.targets = normalised_targets(clips, aspects)

    def __len__(self) -> int:
        """Clips of one epoch."""
        return len(self.clips)

    def __getitem__(self, key: int) -> RatedExample:
        epoch, index = divmod(key, len(self))
        info = self.clips[index].info
        keep = self.truncation.keep(info, keyed_generator(self.seed, epoch, index))
        latents = load_clip(info.path).latents[:keep]
        return RatedExample(latents, self.targets[index])


class ClipPairs(Dataset[PairExample]):
    """Compared clips; `pairs[epoch * len(pairs) + index]` is always the same pair.

    Where a pair is truncated, both clips are cut to the same duration (paper section 5.1).

    Args:
        pairs: what was compared.
        truncation: how pairs are cut.
        seed: of every draw.

    Raises:
        ValueError: without pairs.
    """

    def __init__(self, pairs: Sequence[ClipPair], *, truncation: Truncation, seed: int) -> None:
        if not pairs:
            raise ValueError("no compared clips to train on")
        self.pairs, self.truncation, self.seed = list(pairs), truncation, seed

    def __len__(self) -> int:
        """Pairs of one epoch."""
        return len(self.pairs)

    def __getitem__(self, key: int) -> PairExample:
        epoch, index = divmod(key, len(self))
        pair = self.pairs[index]
        keep = self.truncation.keep(pair.first, keyed_generator(self.seed, epoch, index))
        first = load_clip(pair.first.path).latents[:keep]
        second = load_clip(pair.second.path).latents
        if keep < pair.first.shape[0]:
            second = second[: same_duration(pair.first, keep, pair.second)]
        return PairExample(first, second, pair.label)


def collate_rated(examples: list[RatedExample]) -> dict[str, Tensor | list[Tensor]]:
    """A batch; clips as a list, since they may differ in size."""
    return {
        "clips": [example.latents for example in examples],
        "target": torch.stack([example.target for example in examples]),
    }


def collate_pairs(examples: list[PairExample]) -> dict[str, Tensor | list[Tensor]]:
    """A batch; clips as lists, since they may differ in size."""
    return {
        "first": [example.first for example in examples],
        "second": [example.second for example in examples],
        "label": torch.tensor([example.label for example in examples]),
    }


def normalised_targets(clips: Sequence[RatedClip], aspects: Sequence[Aspect]) -> Tensor:
    """Labels scaled to 0..1 (clip, aspect), NaN where there is none.

    Raises:
        ValueError: for labels outside their scale, and for aspects without any label.
    """
    targets = torch.full((len(clips), len(aspects)), float("nan"))
    outside = []
    for index, clip in enumerate(clips):
        for column, aspect in enumerate(aspects):
            label = clip.scores.get(aspect.name)
            if label is None:
                continue
            if not aspect.low <= label <= aspect.high:
                outside.append(f"row {clip.row}: {aspect.name} {label:g}")
            targets[index, column] = (label - aspect.low) / (aspect.high - aspect.low)
    if outside:
        scales = ", ".join(f"{item.name} {item.low:g}..{item.high:g}" for item in aspects)
        raise ValueError(
            f"{len(outside)} labels lie outside their scale; the first are "
            f"{'; '.join(outside[:3])}. The scales are {scales}"
        )
    empty = [aspects[i].name for i in range(len(aspects)) if bool(targets[:, i].isnan().all())]
    if empty:
        raise ValueError(f"no clip has a label for {empty}: leave these aspects out")
    return targets


def with_labels(
    clips: Sequence[RatedClip], aspects: Sequence[Aspect]
) -> tuple[list[RatedClip], int]:
    """The clips that have a label for one of the aspects at least, and the number of the others."""
    names = {aspect.name for aspect in aspects}
    kept = [clip for clip in clips if not names.isdisjoint(clip.scores)]
    return kept, len(clips) - len(kept)


def clip_identity(info: ClipInfo) -> str:
    """What tells whether two latent files are of the same video: a hash of source or content."""
    if info.source_sha256:
        return info.source_sha256
    return file_sha256(info.path)


def split_pairs(
    pairs: Sequence[ClipPair], fraction: float, seed: int
) -> tuple[list[ClipPair], list[ClipPair]]:
    """Pairs to train on and pairs held out, such that no clip is in both.

    Pairs that share a clip, directly or through others, stay together; groups are held out in an
    order that depends on the seed alone until at least the fraction is reached.

    Raises:
        ValueError: if all pairs hang together.
    """
    groups = connected_groups(pairs)
    if len(groups) < 2:
        raise ValueError(
            f"all {len(pairs)} pairs hang together through shared clips, so none can be held out: "
            "give `held_out_comparisons`"
        )
    held_out: set[int] = set()
    order = torch.randperm(len(groups), generator=keyed_generator(seed, -1)).tolist()
    for group in order[:-1]:
        if len(held_out) >= fraction * len(pairs):
            break
        held_out.update(groups[group])
    train = [pair for index, pair in enumerate(pairs) if index not in held_out]
    return train, [pairs[index] for index in sorted(held_out)]


def connected_groups(pairs: Sequence[ClipPair]) -> list[list[int]]:
    """Indices of pairs that share clips, directly or through others."""
    parent = list(range(len(pairs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    seen: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for info in (pair.first, pair.second):
            parent[root(index)] = root(seen.setdefault(str(info.path), index))
    groups: dict[int, list[int]] = {}
    for index in range(len(pairs)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())
