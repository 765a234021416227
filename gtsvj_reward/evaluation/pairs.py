"""Comparisons as numbers: score differences, labels, and which pairs belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gtsvj_reward.annotations import Comparison

FOLDS = 10
"""Folds of the cross-fitted threshold; as many as there are groups, if those are fewer."""


@dataclass(frozen=True)
class GroupedRows:
    """Comparisons, the group of each, and on which side of the two splits it is."""

    rows: tuple[Comparison, ...]
    """In the order of the file."""
    groups: tuple[int, ...]
    """Number of the group or prompt of each row; a row without either has a number of its own."""
    calibration: tuple[bool, ...]
    """Whether the row's group is one that the held-out threshold is fitted on."""
    folds: tuple[int, ...]
    """The fold of the row's group, for cross-fitted thresholds."""
    resampled: str
    """What a group is: `groups`, `prompts`, `pairs`, or several of them."""

    def keep(self, chosen: Sequence[bool]) -> "GroupedRows":
        """The rows that are chosen; groups, halves and folds stay as they are."""
        kept = [index for index, wanted in enumerate(chosen) if wanted]
        return GroupedRows(
            rows=tuple(self.rows[i] for i in kept),
            groups=tuple(self.groups[i] for i in kept),
            calibration=tuple(self.calibration[i] for i in kept),
            folds=tuple(self.folds[i] for i in kept),
            resampled=self.resampled,
        )


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of one dimension, scored by one column."""

    differences: Float[Tensor, " pair"]
    """score(A) - score(B), float64."""
    labels: Int[Tensor, " pair"]
    """+1 if A is better, -1 if B is, 0 for the same."""
    groups: Int[Tensor, " pair"]
    """Pairs of one number are resampled together."""
    calibration: Bool[Tensor, " pair"]
    """Pairs that the held-out method fits its threshold on."""
    folds: Int[Tensor, " pair"]
    """The fold of each pair, for the cross-fitted method."""
    models: tuple[frozenset[str], ...]
    """The generators of each pair, as far as they are known."""
    probabilities: Float[Tensor, " pair"]
    """Probability that A is better, float64: 1, 1/2 (a tie) or 0 for a label, else the share of
    votes."""
    weights: Float[Tensor, " pair"]
    """How many comparisons each pair counts as, float64."""

    @property
    def voted(self) -> bool:
        """Whether any pair has a probability that is no side, or a weight of its own."""
        split = self.probabilities != (self.labels + 1) / 2
        return bool((split | (self.weights != 1)).any())

    def __len__(self) -> int:
        return len(self.differences)

    def where(self, mask: Bool[Tensor, " pair"]) -> "Pairs":
        """The pairs whose entry is True."""
        return Pairs(
            differences=self.differences[mask],
            labels=self.labels[mask],
            groups=self.groups[mask],
            calibration=self.calibration[mask],
            folds=self.folds[mask],
            models=tuple(m for m, kept in zip(self.models, mask.tolist(), strict=True) if kept),
            probabilities=self.probabilities[mask],
            weights=self.weights[mask],
        )

    def untied(self) -> "Pairs":
        """The pairs that people did not call the same."""
        return self.where(self.labels != 0)

    def involving(self, model: str) -> "Pairs":
        """The pairs with a video of a generator, on either side."""
        return self.where(torch.tensor([model in m for m in self.models], dtype=torch.bool))


def group_rows(rows: Sequence[Comparison], *, fraction: float, seed: int) -> GroupedRows:
    """Group comparisons by prompt, set groups aside for calibration, and deal them into folds.

    Rows of one prompt share videos and raters, so they are not independent: they are resampled
    together and are never on both sides of a split. Where a row names a group, that counts instead
    of the prompt. Without both every row is its own group, and a video may then be on both sides.

    Args:
        rows: all comparisons of a file, so that splits do not depend on which were scored.
        fraction: share of the groups to hold out; at least one, and never all.
        seed: of the splits.
    """
    numbers: dict[tuple[str, str | int], int] = {}
    groups = []
    for index, row in enumerate(rows):
        key: tuple[str, str | int] = ("row", index)
        if row.group is not None:
            key = ("group", row.group)
        elif row.prompt is not None:
            key = ("prompt", row.prompt)
        groups.append(numbers.setdefault(key, len(numbers)))
    count = min(max(round(fraction * len(numbers)), 1), len(numbers) - 1)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
    chosen = set(order[: max(count, 0)].tolist())
    fold = {group: place % FOLDS for place, group in enumerate(order.tolist())}
    kinds = {kind for kind, _ in numbers}
    names = {"group": "groups", "prompt": "prompts", "row": "pairs"}
    return GroupedRows(
        rows=tuple(rows),
        groups=tuple(groups),
        calibration=tuple(group in chosen for group in groups),
        folds=tuple(fold[group] for group in groups),
        resampled=" and ".join(names[kind] for kind in names if kind in kinds),
    )


def scored_pairs(grouped: GroupedRows, dimension: str, scores: Mapping[str, float]) -> Pairs:
    """The rows with a label for a dimension, as tensors.

    Args:
        grouped: comparisons whose videos all have scores.
        dimension: which label.
        scores: video, as the comparisons name it -> score.
    """
    labelled = [index for index, row in enumerate(grouped.rows) if dimension in row.labels]
    rows = [grouped.rows[index] for index in labelled]
    return Pairs(
        differences=torch.tensor(
            [scores[row.video_a] - scores[row.video_b] for row in rows], dtype=torch.float64
        ),
        labels=torch.tensor([row.labels[dimension] for row in rows], dtype=torch.int64),
        groups=torch.tensor([grouped.groups[index] for index in labelled], dtype=torch.int64),
        calibration=torch.tensor(
            [grouped.calibration[index] for index in labelled], dtype=torch.bool
        ),
        folds=torch.tensor([grouped.folds[index] for index in labelled], dtype=torch.int64),
        models=tuple(
            frozenset(model for model in (row.model_a, row.model_b) if model is not None)
            for row in rows
        ),
        probabilities=torch.tensor(
            [row.probabilities.get(dimension, (row.labels[dimension] + 1) / 2) for row in rows],
            dtype=torch.float64,
        ),
        weights=torch.tensor([row.weight for row in rows], dtype=torch.float64),
    )
