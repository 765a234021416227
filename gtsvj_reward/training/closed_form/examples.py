"""Clips with what is known of them, and the rows of a regression that they make."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gtsvj_reward.judge import Aspect
from gtsvj_reward.losses import outcome_shares
from gtsvj_reward.training.closed_form.comparisons import Pairs
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from gtsvj_reward.training.splits import connected_groups


@dataclass(frozen=True)
class Contrast:
    """A positive clip and a negative one (Eq. 4); no label is needed."""

    positive: Load
    negative: Load
    groups: tuple[str, str]
    """The sources of both: the same for a perturbation of the positive clip."""


@dataclass(frozen=True)
class Rated:
    """A clip and what people said of it."""

    clip: Load
    scores: Mapping[str, float]
    """Aspect -> rating on the aspect's own scale; missing ones are left out."""
    group: str
    """Clips of one group are left out together: the prompt, or the clip itself."""


@dataclass(frozen=True)
class Compared:
    """Two clips and which of them is better."""

    first: Load
    second: Load
    label: int
    """+1: the first is better; -1: the second; 0: the same."""
    groups: tuple[str, str]
    """Of both clips; comparisons that share a group are left out together."""
    probability: float | None = None
    """That the first is better, such as a share of votes; it counts instead of the label."""
    weight: float = 1.0
    """How many comparisons it counts as."""


@dataclass(frozen=True)
class ContrastRows:
    """The distinct clips among positives and negatives; a clip that occurs again weighs more."""

    names: list[str]
    """Their content, by which the cache knows their features."""
    positive: Bool[Tensor, " row"]
    weights: Float[Tensor, " row"]
    groups: Int[Tensor, " row"]


def contrast_rows(cache: FeatureCache, contrast: Sequence[Contrast]) -> ContrastRows:
    """The clips of all pairs, which are read."""
    loads = [load for pair in contrast for load in (pair.positive, pair.negative)]
    names = cache.read(loads, "positives and negatives")
    groups = [group for pair in contrast for group in pair.groups]
    rows: dict[tuple[bool, str], list[str]] = {}
    for index, (name, group) in enumerate(zip(names, groups, strict=True)):
        rows.setdefault((index % 2 == 0, name), []).append(group)
    return ContrastRows(
        names=[name for _, name in rows],
        positive=torch.tensor([positive for positive, _ in rows]),
        weights=torch.tensor([len(found) for found in rows.values()]).double(),
        groups=numbered([found[0] for found in rows.values()]),
    )


def compared_rows(cache: FeatureCache, comparisons: Sequence[Compared]) -> tuple[list[str], Pairs]:
    """Content of the distinct clips that were compared, and the comparisons of these rows."""
    loads = [each.first for each in comparisons] + [each.second for each in comparisons]
    names = cache.read(loads, "compared clips")
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    first, second = names[: len(comparisons)], names[len(comparisons) :]
    same = [
        index for index, pair in enumerate(zip(first, second, strict=True)) if len(set(pair)) == 1
    ]
    if same:
        raise ValueError(
            f"comparison {same[0]} is of a clip with itself ({len(same)} of {len(comparisons)} "
            "have the same content on both sides): leave it out"
        )
    pairs = Pairs(
        first=torch.tensor([rows[name] for name in first]),
        second=torch.tensor([rows[name] for name in second]),
        labels=labels_of(comparisons),
        groups=connected([each.groups for each in comparisons]),
    )
    return list(rows), pairs


def labels_of(
    comparisons: Sequence[Compared],
) -> Int[Tensor, " pair"] | Float[Tensor, "pair 3"]:
    """Labels, or shares of outcomes where any has a probability or another weight than 1.

    Raises:
        ValueError: for another label than -1, 0 and 1, a probability outside 0..1, or a weight
            that is not above 0.
    """
    unknown = [index for index, each in enumerate(comparisons) if each.label not in (-1, 0, 1)]
    if unknown:
        raise ValueError(
            f"comparison {unknown[0]} has the label {comparisons[unknown[0]].label} "
            f"({len(unknown)} of {len(comparisons)} comparisons have such labels): expected +1 for "
            "the first clip, -1 for the second, 0 for a tie"
        )
    wrong = [
        index
        for index, each in enumerate(comparisons)
        if not 0 <= (each.probability or 0.0) <= 1 or not 0 < each.weight < math.inf
    ]
    if wrong:
        raise ValueError(
            f"comparison {wrong[0]} has the probability {comparisons[wrong[0]].probability} and "
            f"the weight {comparisons[wrong[0]].weight} ({len(wrong)} of {len(comparisons)} "
            "comparisons): expected 0..1, and above 0"
        )
    if all(each.probability is None and each.weight == 1 for each in comparisons):
        return torch.tensor([int(each.label) for each in comparisons])
    return outcome_shares(
        [each.label for each in comparisons],
        [each.probability for each in comparisons],
        [each.weight for each in comparisons],
    )


def range_normalised(
    ratings: Sequence[Rated], aspects: Sequence[Aspect]
) -> Float[Tensor, "clip aspect"]:
    """Ratings scaled to 0..1, NaN where there is none, float64.

    Raises:
        ValueError: without aspects, and for a rating that is NaN or outside its scale.
    """
    if not aspects:
        raise ValueError("ratings need `aspects`: their names and scales")
    nothing = float("nan")
    unknown = [
        (row, aspect.name)
        for row, rated in enumerate(ratings)
        for aspect in aspects
        if math.isnan(rated.scores.get(aspect.name, aspect.low))
    ]
    if unknown:
        row, name = unknown[0]
        raise ValueError(
            f"rating {row} of {name!r} is NaN ({len(unknown)} such ratings): leave aspects without "
            "a rating out of `scores`"
        )
    table = torch.tensor(
        [[rated.scores.get(aspect.name, nothing) for aspect in aspects] for rated in ratings],
        dtype=torch.float64,
    )
    low, high = ends_of(aspects)
    outside = ((table < low) | (table > high)).nonzero().tolist()
    if outside:
        row, column = outside[0]
        aspect = aspects[column]
        raise ValueError(
            f"rating {row} of {aspect.name!r} is {table[row, column]:g}, outside its scale "
            f"{aspect.low:g}..{aspect.high:g} ({len(outside)} such ratings)"
        )
    return (table - low) / (high - low)


def own_scale(
    values: Float[Tensor, "clip aspect"], aspects: Sequence[Aspect]
) -> Float[Tensor, "clip aspect"]:
    """Range-normalised ratings on the scales of their aspects."""
    low, high = ends_of(aspects)
    return low + values * (high - low)


def ends_of(
    aspects: Sequence[Aspect],
) -> tuple[Float[Tensor, " aspect"], Float[Tensor, " aspect"]]:
    """Lowest and highest rating of each aspect, float64."""
    low = torch.tensor([aspect.low for aspect in aspects], dtype=torch.float64)
    high = torch.tensor([aspect.high for aspect in aspects], dtype=torch.float64)
    return low, high


def numbered(names: Sequence[str]) -> Int[Tensor, " row"]:
    """Groups as numbers, in the order in which they come."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names])


def connected(groups: Sequence[tuple[str, str]]) -> Int[Tensor, " pair"]:
    """A number per comparison, the same for those that share a group, also through others."""
    numbers = torch.empty(len(groups), dtype=torch.long)
    for number, members in enumerate(connected_groups([frozenset(pair) for pair in groups])):
        numbers[members] = number
    return numbers
