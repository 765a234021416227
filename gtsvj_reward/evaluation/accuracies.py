"""All accuracies of one set of pairs, with intervals and with what uninformed scores get."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.evaluation.pairs import Pairs
from gtsvj_reward.evaluation.result import Accuracy, EvaluationSettings
from gtsvj_reward.metrics import (
    TieAccuracy,
    accuracy_at_threshold,
    accuracy_with_ties,
    accuracy_without_ties,
    bootstrap_interval,
    cross_fitted_accuracy_with_ties,
    cross_fitted_interval,
    held_out_accuracy_with_ties,
    videoreward_accuracy_with_ties,
    videoreward_accuracy_without_ties,
)

Method = Callable[[Float[Tensor, " pair"], Int[Tensor, " pair"]], TieAccuracy]

CROSS_FITTED = "cross_fitted_with_ties"
"""The method that answers each pair at a threshold from other folds."""

HELD_OUT = "held_out_with_ties"
"""The method that answers one half of the pairs at a threshold from the other."""

FITTED: dict[str, Method] = {
    "with_ties": accuracy_with_ties,
    "videoreward_with_ties": videoreward_accuracy_with_ties,
}
"""Methods that count human ties and fit a threshold on the pairs they report on: optimistic, and
without an interval, since resampling them resamples the optimism."""

UNTIED: dict[str, Method] = {
    "without_ties": accuracy_without_ties,
    "videoreward_without_ties": videoreward_accuracy_without_ties,
}
"""Methods that leave human ties out."""

METHODS = {
    CROSS_FITTED: "with ties, cross-fitted threshold",
    "without_ties": "without ties",
    HELD_OUT: "with ties, threshold from the other half",
    "with_ties": "with ties, in-sample threshold (Deutsch et al.)",
    "videoreward_with_ties": "with ties (VideoReward's script)",
    "videoreward_without_ties": "without ties (VideoReward's script)",
}
"""Every method -> what reports call it, in their order."""


def measure_accuracies(
    pairs: Pairs, settings: EvaluationSettings
) -> tuple[dict[str, Accuracy], dict[str, str]]:
    """Accuracy by every method, and why some are undefined for these pairs.

    Returns:
        Method -> accuracy, and method -> reason; each of `METHODS` is in one of the two.
    """
    accuracies: dict[str, Accuracy] = {}
    undefined: dict[str, str] = {}
    for name in METHODS:
        reason = reason_against(name, pairs)
        if reason is not None:
            undefined[name] = reason
        elif name == CROSS_FITTED:
            accuracies[name] = measure_cross_fitted(pairs, settings)
        elif name == HELD_OUT:
            accuracies[name] = measure_held_out(pairs, settings)
        else:
            accuracies[name] = measure(name, pairs, settings)
    return accuracies, undefined


def reason_against(name: str, pairs: Pairs) -> str | None:
    """Why a method is not defined for these pairs, or None."""
    if len(pairs) == 0:
        return "no labelled pairs"
    if name in UNTIED and not len(pairs.untied()):
        return f"all {len(pairs)} pairs are human ties"
    if name == CROSS_FITTED and len(pairs.folds.unique()) < 2:
        return f"all {len(pairs)} pairs are in one fold: none are left to fit its threshold on"
    fitted = int(pairs.calibration.sum())
    if name == HELD_OUT and not 0 < fitted < len(pairs):
        return f"{fitted} of {len(pairs)} pairs are in the calibration half: it needs both halves"
    return None


def measure(name: str, pairs: Pairs, settings: EvaluationSettings) -> Accuracy:
    """Accuracy by a method of `FITTED` or `UNTIED`."""
    method = FITTED[name] if name in FITTED else UNTIED[name]
    counted = pairs if name in FITTED else pairs.untied()
    found = method(pairs.differences, pairs.labels)

    def accuracy(chosen: Int[Tensor, " _"]) -> float:
        return method(counted.differences[chosen], counted.labels[chosen]).accuracy

    return Accuracy(
        accuracy=found.accuracy,
        interval=None if name in FITTED else interval(accuracy, counted, settings),
        pairs=len(counted),
        human_ties=int((pairs.labels == 0).sum()),
        predicted_ties=found.predicted_ties,
        threshold=found.threshold,
        constant=method(torch.zeros_like(pairs.differences), pairs.labels).accuracy,
        chance=chance_with_ties(pairs, pairs) if name in FITTED else 0.5,
    )


def measure_cross_fitted(pairs: Pairs, settings: EvaluationSettings) -> Accuracy:
    """Accuracy of all pairs, each with a threshold from other folds; the bootstrap refits them."""
    split = (pairs.differences, pairs.labels, pairs.folds)
    found = cross_fitted_accuracy_with_ties(*split)
    zeros = torch.zeros_like(pairs.differences)
    return Accuracy(
        accuracy=found.accuracy,
        interval=cross_fitted_interval(
            *split,
            groups=pairs.groups,
            resamples=settings.resamples,
            confidence=settings.confidence,
            seed=settings.seed,
        ),
        pairs=len(pairs),
        human_ties=found.human_ties,
        predicted_ties=found.predicted_ties,
        threshold=found.threshold,
        constant=cross_fitted_accuracy_with_ties(zeros, pairs.labels, pairs.folds).accuracy,
        chance=chance_with_ties(pairs, pairs),
    )


def measure_held_out(pairs: Pairs, settings: EvaluationSettings) -> Accuracy:
    """Accuracy on the other half at the threshold of the calibration half.

    The bootstrap draws from the reported half and keeps the threshold: it measures the uncertainty
    of the accuracy at this threshold, not the variation of the threshold.
    """
    found = held_out_accuracy_with_ties(pairs.differences, pairs.labels, pairs.calibration)
    reported = pairs.where(~pairs.calibration)
    threshold = found.threshold
    if threshold is None:
        raise RuntimeError("held-out accuracy came without its threshold")

    def accuracy(chosen: Int[Tensor, " _"]) -> float:
        differences, labels = reported.differences[chosen], reported.labels[chosen]
        return accuracy_at_threshold(differences, labels, threshold).accuracy

    zeros = torch.zeros_like(pairs.differences)
    return Accuracy(
        accuracy=found.accuracy,
        interval=interval(accuracy, reported, settings),
        pairs=len(reported),
        human_ties=int((reported.labels == 0).sum()),
        predicted_ties=found.predicted_ties,
        threshold=threshold,
        constant=held_out_accuracy_with_ties(zeros, pairs.labels, pairs.calibration).accuracy,
        chance=chance_with_ties(pairs.where(pairs.calibration), reported),
        calibration_pairs=int(pairs.calibration.sum()),
    )


def interval(
    accuracy: Callable[[Int[Tensor, " _"]], float], pairs: Pairs, settings: EvaluationSettings
) -> tuple[float, float] | None:
    """Bootstrap interval of a statistic of indices into `pairs`, whole groups drawn at a time.

    None if all pairs are of one group: there is nothing to resample.
    """
    if len(pairs.groups.unique()) < 2:
        return None
    return bootstrap_interval(
        accuracy,
        len(pairs),
        groups=pairs.groups,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def chance_with_ties(fitted: Pairs, reported: Pairs) -> float:
    """The limit for random scores when the tie threshold is fitted.

    Predicting a share q of ties is correct on q t + (1 - q)(1 - t) / 2 of the pairs, where t is the
    share of human ties. This is linear in q, so the best is to predict only ties or none.
    """
    fitted_ties = (fitted.labels == 0).double().mean().item()
    ties = (reported.labels == 0).double().mean().item()
    return ties if fitted_ties >= (1 - fitted_ties) / 2 else (1 - ties) / 2
