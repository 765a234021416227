"""Accuracy on pairs that people may have called a tie.

A difference is score(A) - score(B), where higher scores are better. A label is +1 if people
preferred A, -1 if they preferred B, 0 for no difference. A threshold turns scores into the same
three answers: |difference| <= threshold is a predicted tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from gtsvj_reward.metrics.arrays import Labels, Scores, as_tensor


@dataclass(frozen=True)
class TieAccuracy:
    """Share of pairs that scores answer as people did, and what it rests on."""

    accuracy: float
    """Share of the counted pairs with the right answer of the three, 0..1."""
    pairs: int
    """Number of pairs that were counted."""
    human_ties: int
    """Pairs that people called a tie; without ties they are left out of `pairs`."""
    predicted_ties: int
    """Counted pairs within the threshold; without ties those with exactly equal scores."""
    threshold: float | None
    """Largest |difference| that is a predicted tie; None where ties are not predicted."""


def accuracy_with_ties(differences: Scores, labels: Labels) -> TieAccuracy:
    """Accuracy at the threshold that suits these very pairs best.

    The tie calibration of Deutsch et al. (2023, arXiv:2305.14324). Tries threshold 0, at which only
    equal scores are ties, and every distinct |difference|. Pairs with equal |difference| become
    ties together; the smallest of the best thresholds is kept. O(n log n).

    The threshold is fitted and evaluated on the same pairs, as in published tables, which is
    optimistic: see `cross_fitted_accuracy_with_ties` for the accuracy on new pairs. A constant
    score reaches the share of human ties.

    Args:
        differences: score(A) - score(B); compared in float64, so that rounding in the subtraction
            can part differences that are equal on paper.
        labels: +1, -1 or 0.

    Raises:
        ValueError: no pairs, unequal lengths, a difference that is not finite, another label.
    """
    values, answers = check_pairs(differences, labels)
    return at_threshold(values, answers, best_threshold(values, answers))


def accuracy_against_threshold(
    differences: Scores, labels: Labels
) -> tuple[Float64[Tensor, " threshold"], Float64[Tensor, " threshold"]]:
    """Accuracy at every relevant threshold: 0 and each distinct |difference|.

    Between two of them the accuracy is that of the lower one.

    Returns:
        Thresholds in ascending order, and the accuracy at each.

    Raises:
        ValueError: as for `accuracy_with_ties`.
    """
    values, answers = check_pairs(differences, labels)
    thresholds, correct = correct_by_threshold(values, answers)
    return thresholds, correct.double() / len(answers)


def accuracy_at_threshold(differences: Scores, labels: Labels, threshold: float) -> TieAccuracy:
    """Accuracy at a threshold that was chosen beforehand.

    Args:
        differences: as for `accuracy_with_ties`.
        labels: as for `accuracy_with_ties`.
        threshold: largest |difference| that is a predicted tie, >= 0, in units of the score.

    Raises:
        ValueError: a threshold that is negative or not finite; else as for `accuracy_with_ties`.
    """
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"`threshold` must be >= 0 and finite, got {threshold}")
    return at_threshold(*check_pairs(differences, labels), threshold)


def held_out_accuracy_with_ties(
    differences: Scores,
    labels: Labels,
    calibration: Bool[Tensor, " pair"] | Bool[np.ndarray, " pair"] | Sequence[bool],
) -> TieAccuracy:
    """Accuracy on some pairs at the threshold that suits the other pairs best.

    Pairs of one prompt or clip belong on one side, or the sides are not independent.

    Args:
        differences: as for `accuracy_with_ties`.
        labels: as for `accuracy_with_ties`.
        calibration: True where a pair serves to choose the threshold; the others are counted.

    Raises:
        ValueError: pairs on one side only; else as for `accuracy_with_ties`.
    """
    values, answers = check_pairs(differences, labels)
    fitted = as_tensor(calibration, "calibration").bool()
    if fitted.shape != answers.shape:
        raise ValueError(
            f"`calibration` must have one entry per pair: got shape {tuple(fitted.shape)} "
            f"for {len(answers)} pairs"
        )
    chosen = int(fitted.sum())
    if not 0 < chosen < len(answers):
        raise ValueError(
            f"`calibration` is True for {chosen} of {len(answers)} pairs: "
            "both the calibration and the evaluation need at least one"
        )
    threshold = best_threshold(values[fitted], answers[fitted])
    return at_threshold(values[~fitted], answers[~fitted], threshold)


def accuracy_without_ties(differences: Scores, labels: Labels) -> TieAccuracy:
    """Accuracy on the pairs in which people preferred one clip.

    Nothing is predicted a tie: equal scores are a wrong answer, counted in `predicted_ties`. (Half
    a right one in `pairwise_accuracy`.)

    Raises:
        ValueError: if people called every pair a tie; else as for `accuracy_with_ties`.
    """
    scored, told = check_pairs(differences, labels)
    decided = told != 0
    if not decided.any():
        raise ValueError(
            f"all {len(told)} pairs are human ties: accuracy without ties has no pair to count; "
            "use `accuracy_with_ties`"
        )
    values, answers = scored[decided], told[decided]
    return TieAccuracy(
        accuracy=int((values.sign() == answers).sum()) / len(answers),
        pairs=len(answers),
        human_ties=len(told) - len(answers),
        predicted_ties=int((values == 0).sum()),
        threshold=None,
    )


def check_pairs(
    differences: Scores, labels: Labels
) -> tuple[Float64[Tensor, " pair"], Int[Tensor, " pair"]]:
    """The differences in float64 and the labels, once both have passed as pairs.

    Raises:
        TypeError: for anything but numbers.
        ValueError: with the index of the first pair at fault and how many there are.
    """
    values, answers = as_tensor(differences, "differences"), as_tensor(labels, "labels")
    if values.ndim != 1 or values.shape != answers.shape or len(answers) == 0:
        raise ValueError(
            "expected one difference and one label per pair, at least one pair; "
            f"got shapes {tuple(values.shape)} and {tuple(answers.shape)}"
        )
    if answers.is_floating_point() or answers.dtype == torch.bool:
        raise ValueError(f"labels must be integers (+1, -1, 0), got {answers.dtype}")
    undefined = (~values.isfinite()).nonzero().flatten().tolist()
    if undefined:
        raise ValueError(
            f"pair {undefined[0]} has the difference {values[undefined[0]].item()} "
            f"({len(undefined)} of {len(answers)} pairs are not finite)"
        )
    unknown = ((answers < -1) | (answers > 1)).nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"pair {unknown[0]} has the label {answers[unknown[0]].item()} ({len(unknown)} of "
            f"{len(answers)} pairs): expected +1 (A), -1 (B) or 0 (tie)"
        )
    return values.detach().double(), answers.long()


def gains_by_threshold(
    values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"], folds: Int[Tensor, " pair"]
) -> tuple[Float64[Tensor, " threshold"], Int[Tensor, "fold threshold"]]:
    """Candidate thresholds in ascending order, and how many pairs of each fold become right.

    Right at a threshold, and not yet where no pair is a tie.
    """
    size, order = values.abs().sort()
    # Each pair that becomes a tie is right from there on, or not; (0, 0) is right either way.
    gain = ((labels == 0).long() - (values.sign() == labels).long())[order]
    own = torch.zeros(int(folds.max()) + 1, len(gain) + 1, dtype=torch.long)
    own[folds[order], torch.arange(1, len(gain) + 1)] = gain
    thresholds, counts = torch.cat([size.new_zeros(1), size]).unique_consecutive(return_counts=True)
    last = counts.cumsum(0) - 1  # position after the last pair within the threshold
    return thresholds, own.cumsum(1)[:, last]


def correct_by_threshold(
    values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"]
) -> tuple[Float64[Tensor, " threshold"], Int[Tensor, " threshold"]]:
    """Candidate thresholds in ascending order, and how many pairs are right at each."""
    thresholds, gains = gains_by_threshold(values, labels, torch.zeros_like(labels))
    return thresholds, (values.sign() == labels).sum() + gains[0]


def best_threshold(values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"]) -> float:
    """The smallest of the thresholds with the most right answers."""
    thresholds, correct = correct_by_threshold(values, labels)
    return thresholds[correct.argmax()].item()  # argmax: the first of equals


def at_threshold(
    values: Float64[Tensor, " pair"],
    labels: Int[Tensor, " pair"],
    threshold: float,
    applied: Float64[Tensor, " pair"] | None = None,
) -> TieAccuracy:
    """`accuracy_at_threshold` for checked pairs.

    Args:
        values: the differences.
        labels: people's labels.
        threshold: reported, and applied to every pair.
        applied: thresholds per pair, applied instead.
    """
    limit = torch.full_like(values, threshold) if applied is None else applied
    answers = values.sign().masked_fill(values.abs() <= limit, 0)
    return TieAccuracy(
        accuracy=int((answers == labels).sum()) / len(labels),
        pairs=len(labels),
        human_ties=int((labels == 0).sum()),
        predicted_ties=int((answers == 0).sum()),
        threshold=threshold,
    )
