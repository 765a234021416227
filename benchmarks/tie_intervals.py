"""Bias of accuracies with ties, and coverage of their intervals.

    python -m benchmarks.tie_intervals

A scorer and people see the same difference of two clips, each with noise of their own; people call
a small one a tie. The truth is what a threshold fitted on n pairs reaches on new pairs: the mean of
the thresholds of all data sets on a million others. In-sample is Deutsch et al.'s value. Biases
rest on ten times as many data sets as coverages, which take resamples.
"""

import argparse
import math
from dataclasses import dataclass
from statistics import NormalDist, mean

import torch
from torch import Tensor

from gtsvj_reward.metrics import (
    accuracy_against_threshold,
    accuracy_with_ties,
    bootstrap_interval,
    cross_fitted_accuracy_with_ties,
    cross_fitted_interval,
)

POPULATION = 10**6
BIAS_DATASETS = 10
"""Data sets for a bias per data set for a coverage."""


@dataclass(frozen=True)
class Family:
    """Distribution of data sets."""

    pairs: int
    ties: float = 0.3
    """Share of human ties."""
    quality: float = 0.8
    """Weight of the common difference; the rest is noise."""
    per_group: int = 1
    """Pairs per prompt; half of a difference is common to the prompt."""
    grid: float = 0.0
    """Scores are rounded to multiples of it; 0: not."""


FAMILIES = (
    Family(50), Family(50, ties=0.5, quality=0.6), Family(50, ties=0.1, quality=0.9),
    Family(100, ties=0.7), Family(200), Family(200, ties=0.1, grid=0.1),
    Family(200, ties=0.33, quality=0.6, per_group=4), Family(1000),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Means over data sets; accuracies as shares."""

    truth: float
    bias: float
    """Bias of the cross-fitted accuracy."""
    in_sample_bias: float
    coverage: float
    """Coverage of the cross-fitted interval."""
    in_sample_coverage: float
    """Coverage of the interval that resamples Deutsch et al.'s value."""


def draw(family: Family, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Differences of scores, and labels."""

    def normal(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    common = normal(count)
    if family.per_group > 1:
        shared = normal(-(-count // family.per_group)).repeat_interleave(family.per_group)[:count]
        common = (common + shared) / math.sqrt(2)
    noise = math.sqrt(1 - family.quality**2)
    scores = family.quality * common + noise * normal(count)
    if family.grid:
        scores = (scores / family.grid).round() * family.grid
    seen = family.quality * common + noise * normal(count)
    limit = NormalDist().inv_cdf((1 + family.ties) / 2)
    return scores, seen.sign().masked_fill(seen.abs() <= limit, 0).long()


def simulate(family: Family, *, datasets: int, resamples: int, seed: int) -> Found:
    """Bias and coverage over data sets of one family."""
    generator = torch.Generator().manual_seed(seed)
    thresholds, accuracies = accuracy_against_threshold(*draw(family, POPULATION, generator))
    count, options = family.pairs, {"resamples": resamples}
    groups = torch.arange(count) // family.per_group
    fitted, cross, inside, intervals, naive = [], [], [], [], []
    for number in range(BIAS_DATASETS * datasets):
        scores, labels = draw(family, count, generator)
        places = torch.randperm(int(groups.max()) + 1, generator=generator)
        folds = (places % 10)[groups]
        found = cross_fitted_accuracy_with_ties(scores, labels, folds)
        at = torch.searchsorted(thresholds, found.threshold, right=True) - 1
        fitted.append(accuracies[at].item())
        cross.append(found.accuracy)
        inside.append(accuracy_with_ties(scores, labels).accuracy)
        if number >= datasets:
            continue
        intervals.append(cross_fitted_interval(scores, labels, folds, groups=groups, **options))
        naive.append(in_sample_interval(scores, labels, groups, resamples))
    truth = mean(fitted)
    return Found(
        truth=truth,
        bias=mean(cross) - truth,
        in_sample_bias=mean(inside) - truth,
        coverage=mean(low <= truth <= high for low, high in intervals),
        in_sample_coverage=mean(low <= truth <= high for low, high in naive),
    )


def in_sample_interval(
    scores: Tensor, labels: Tensor, groups: Tensor, resamples: int
) -> tuple[float, float]:
    """Plain bootstrap percentiles of Deutsch et al.'s value."""
    return bootstrap_interval(
        lambda i: accuracy_with_ties(scores[i], labels[i]).accuracy,
        len(labels),
        groups=groups,
        resamples=resamples,
    )


def main() -> None:
    """A row per family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| pairs | ties | quality | pairs per prompt | scores | truth | in-sample: too high by | "
          "covers | cross-fitted: too high by | covers |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for family in FAMILIES:
        found = simulate(family, **vars(args))
        scores = f"rounded to {family.grid:g}" if family.grid else "as they are"
        print(
            f"| {family.pairs} | {family.ties:.0%} | {family.quality:g} | {family.per_group} | "
            f"{scores} | {100 * found.truth:.1f} | {100 * found.in_sample_bias:+.1f} | "
            f"{found.in_sample_coverage:.1%} | {100 * found.bias:+.1f} | {found.coverage:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
