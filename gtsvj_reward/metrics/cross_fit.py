"""Accuracy with ties at thresholds that are never fitted on the pairs that they are judged by."""

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from gtsvj_reward.metrics.arrays import Labels, Scores, as_tensor
from gtsvj_reward.metrics.bootstrap import bootstrap_interval
from gtsvj_reward.metrics.ties import (
    TieAccuracy,
    at_threshold,
    best_threshold,
    check_pairs,
    gains_by_threshold,
)


def cross_fitted_accuracy_with_ties(
    differences: Scores, labels: Labels, folds: Labels
) -> TieAccuracy:
    """Accuracy on all pairs, each answered at the threshold that suits the other folds best.

    Estimates the accuracy of a fitted threshold on new pairs, without bias except that the
    threshold is fitted on one fold less. `accuracy_with_ties` answers each pair at a threshold that
    was fitted on it too, which is too high, by several points where pairs are few.

    Args:
        differences: as for `accuracy_with_ties`.
        labels: as for `accuracy_with_ties`.
        folds: number of each pair's fold, any integers, ten folds as a rule; pairs of one prompt
            or clip belong in one fold.

    Returns:
        The accuracy; its `threshold` is fitted on all pairs, and is what new pairs should get.

    Raises:
        ValueError: fewer than two folds; else as for `accuracy_with_ties`.
    """
    values, answers = check_pairs(differences, labels)
    numbers = check_folds(folds, len(answers))
    applied = out_of_fold_thresholds(values, answers, numbers)
    return at_threshold(values, answers, best_threshold(values, answers), applied)


def cross_fitted_interval(
    differences: Scores,
    labels: Labels,
    folds: Labels,
    *,
    groups: Labels | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of `cross_fitted_accuracy_with_ties`.

    Every resample refits its thresholds out of fold: copies of a pair stay in its fold. Repeated
    pairs make thresholds worse than new ones would, so the resamples are moved to have the accuracy
    as their mean.

    Args:
        differences: as for `accuracy_with_ties`.
        labels: as for `accuracy_with_ties`.
        folds: as for `cross_fitted_accuracy_with_ties`; no group may be in two.
        groups: as for `bootstrap_interval`.
        resamples: as for `bootstrap_interval`.
        confidence: as for `bootstrap_interval`.
        seed: as for `bootstrap_interval`.

    Raises:
        ValueError: as for `cross_fitted_accuracy_with_ties` and `bootstrap_interval`.
    """
    values, answers = check_pairs(differences, labels)
    numbers = check_folds(folds, len(answers))

    def accuracy(chosen: Int[Tensor, " _"]) -> float:
        drawn, told = values[chosen], answers[chosen]
        applied = out_of_fold_thresholds(drawn, told, numbers[chosen])
        return at_threshold(drawn, told, 0.0, applied).accuracy

    low, high = bootstrap_interval(
        accuracy,
        len(answers),
        groups=groups,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        around=accuracy(torch.arange(len(answers))),
    )
    return max(0.0, low), min(1.0, high)


def check_folds(folds: Labels, count: int) -> Int[Tensor, " pair"]:
    """The folds, numbered from 0.

    Raises:
        ValueError: for another number of entries, or fewer than two folds.
    """
    numbers = as_tensor(folds, "folds")
    if numbers.shape != (count,):
        raise ValueError(
            f"`folds` must have one entry per pair: got shape {tuple(numbers.shape)} for {count} "
            "pairs"
        )
    found, inverse = numbers.unique(return_inverse=True)
    if len(found) < 2:
        raise ValueError(
            f"all {count} pairs are in one fold: no pairs are left to fit its threshold on"
        )
    shared: Tensor = inverse
    return shared


def out_of_fold_thresholds(
    values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"], folds: Int[Tensor, " pair"]
) -> Float64[Tensor, " pair"]:
    """For each pair the smallest of the best thresholds of the other folds, by one sort.

    A fold without others, as a resample may have, gets 0: the candidate that needs no pairs.
    """
    thresholds, gains = gains_by_threshold(values, labels, folds)
    best = (gains.sum(0) - gains).argmax(1)  # argmax: the first of equals
    return thresholds[best][folds]
