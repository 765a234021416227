"""How far a statistic would move if other pairs had been drawn."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from gtsvj_reward.metrics.arrays import Labels, as_tensor


def bootstrap_interval(
    statistic: Callable[[Int[Tensor, " _"]], float],
    count: int,
    *,
    groups: Labels | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    around: float | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval.

        bootstrap_interval(lambda i: spearman(first[i], second[i]), len(first))

    Pairs that share a prompt or a clip are not independent: give their groups, and whole groups are
    drawn. The interval holds asymptotically; with few groups (below about 20) it is too narrow.

    Args:
        statistic: gets the indices of the drawn pairs, with repetitions, and returns a number. Its
            errors are not caught: leave out unsuitable pairs first (human ties, for an accuracy
            without ties).
        count: number of pairs.
        groups: number of the group that each pair belongs to, any integers; None: each pair is one.
            Draws then differ in their number of pairs if groups do.
        resamples: number of resamples.
        confidence: coverage, between 0 and 1.
        seed: of the draws; the same interval in every run.
        around: shifts all draws so that this is their mean, for a statistic that repeated pairs
            bias; None: no shift.

    Returns:
        Lower and upper end, in the units of the statistic.

    Raises:
        ValueError: an argument out of its range, fewer than two units to draw from, or a statistic
            that is not finite.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected `resamples` >= 1 and 0 < `confidence` < 1, got {resamples} and {confidence}"
        )
    members, starts, sizes = units(count, groups)
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(resamples, dtype=torch.float64)
    for number in range(resamples):
        drawn = torch.randint(len(sizes), (len(sizes),), generator=generator)
        values[number] = statistic(members[spread(starts[drawn], sizes[drawn])])
    undefined = (~values.isfinite()).nonzero().flatten().tolist()
    if undefined:
        raise ValueError(
            f"the statistic is {values[undefined[0]].item()} on resample {undefined[0]} "
            f"({len(undefined)} of {resamples} are not finite): some resamples lack pairs that it "
            "needs; give more pairs"
        )
    if around is not None:
        values += around - values.mean()
    ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = values.quantile(ends).tolist()
    return low, high


def units(
    count: int, groups: Labels | None
) -> tuple[Int[Tensor, " pair"], Int[Tensor, " unit"], Int[Tensor, " unit"]]:
    """Pairs sorted by group, and where in that order each group starts and how long it is."""
    if groups is None:
        members, sizes = torch.arange(count), torch.ones(count, dtype=torch.long)
    else:
        numbers = as_tensor(groups, "groups")
        if numbers.shape != (count,):
            raise ValueError(
                f"`groups` must have one entry per pair: got shape {tuple(numbers.shape)} "
                f"for {count} pairs"
            )
        ordered, members = numbers.cpu().sort(stable=True)
        sizes = ordered.unique_consecutive(return_counts=True)[1]
    if len(sizes) < 2:
        kind = "pairs" if groups is None else "groups"
        raise ValueError(
            f"resampling needs at least 2 {kind}, got {len(sizes)}: one alone gives no interval"
        )
    return members, sizes.cumsum(0) - sizes, sizes


def spread(starts: Int[Tensor, " unit"], sizes: Int[Tensor, " unit"]) -> Int[Tensor, " _"]:
    """The runs start, start + 1, ... of each unit, one after the other."""
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.arange(int(sizes.sum())) + shift.repeat_interleave(sizes)
