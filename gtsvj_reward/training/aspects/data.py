"""Rated clips as examples, each drawn from (seed, epoch, index) alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training.data import Truncation


@dataclass(frozen=True)
class RatedClip:
    """A clip and what people said of it."""

    info: ClipInfo
    """Where its latents are."""
    scores: Mapping[str, float]
    """Aspect -> label on the aspect's own scale; missing ones are left out."""
    row: str
    """Row of the file, for messages."""
    group: str | None = None
    """Group that the file names."""


@dataclass(frozen=True)
class RatedExample:
    """One clip of a batch."""

    latents: Tensor
    """(time, channel, height, width)."""
    target: Tensor
    """Range-normalised labels (aspect,); NaN where there is none."""


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


def collate_rated(examples: list[RatedExample]) -> dict[str, Tensor | list[Tensor]]:
    """A batch; clips as a list, since they may differ in size."""
    return {
        "clips": [example.latents for example in examples],
        "target": torch.stack([example.target for example in examples]),
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
