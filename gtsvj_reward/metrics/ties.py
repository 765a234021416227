"""Accuracy on pairs that people may have called a tie.

Everywhere a difference is score(A) - score(B), higher scores being better, and a label is +1 where
people preferred A, -1 where they preferred B, 0 where they saw no difference. A threshold turns
scores into the same three answers: |difference| <= threshold is a predicted tie.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor


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


def accuracy_with_ties(
    differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"]
) -> TieAccuracy:
    """Accuracy at the threshold that suits these very pairs best.

    The tie calibration of Deutsch et al. (2023, arXiv:2305.14324). Threshold 0, at which only equal
    scores are ties, and every distinct |difference| are tried, so that pairs with the same one
    become ties together; the smallest of the best thresholds is kept. O(n log n).

    The threshold is fitted on the pairs that it is judged by. So is that of published tables; see
    `held_out_accuracy_with_ties` for a fair one. A constant score reaches the share of human ties.

    Args:
        differences: score(A) - score(B); compared in float64, so that rounding in the subtraction
            can part differences that are equal on paper.
        labels: +1, -1 or 0.

    Raises:
        ValueError: no pairs, unequal lengths, a difference that is not finite, another label.
    """
    values = check_pairs(differences, labels)
    return at_threshold(values, labels, best_threshold(values, labels))


def accuracy_against_threshold(
    differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"]
) -> tuple[Float64[Tensor, " threshold"], Float64[Tensor, " threshold"]]:
    """Accuracy at every threshold that tells: 0 and each distinct |difference|.

    Between two of them the accuracy is that of the lower one.

    Returns:
        Thresholds in ascending order, and the accuracy at each.

    Raises:
        ValueError: as for `accuracy_with_ties`.
    """
    thresholds, correct = correct_by_threshold(check_pairs(differences, labels), labels)
    return thresholds, correct.double() / len(labels)


def accuracy_at_threshold(
    differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"], threshold: float
) -> TieAccuracy:
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
    return at_threshold(check_pairs(differences, labels), labels, threshold)


def held_out_accuracy_with_ties(
    differences: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"],
    calibration: Bool[Tensor, " pair"],
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
    values = check_pairs(differences, labels)
    if calibration.shape != labels.shape:
        raise ValueError(
            f"`calibration` must have one entry per pair: got shape {tuple(calibration.shape)} "
            f"for {len(labels)} pairs"
        )
    chosen = int(calibration.sum())
    if not 0 < chosen < len(labels):
        raise ValueError(
            f"`calibration` is True for {chosen} of {len(labels)} pairs: "
            "both the calibration and the evaluation need at least one"
        )
    threshold = best_threshold(values[calibration], labels[calibration])
    return at_threshold(values[~calibration], labels[~calibration], threshold)


def accuracy_without_ties(
    differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"]
) -> TieAccuracy:
    """Accuracy on the pairs in which people preferred one clip.

    Nothing is predicted a tie: equal scores are a wrong answer, counted in `predicted_ties`. (Half
    a right one in `pairwise_accuracy`.)

    Raises:
        ValueError: if people called every pair a tie; else as for `accuracy_with_ties`.
    """
    values = check_pairs(differences, labels)
    decided = labels != 0
    if not decided.any():
        raise ValueError(
            f"all {len(labels)} pairs are human ties: accuracy without ties has no pair to count; "
            "use `accuracy_with_ties`"
        )
    values, answers = values[decided], labels[decided]
    return TieAccuracy(
        accuracy=int((values.sign() == answers).sum()) / len(answers),
        pairs=len(answers),
        human_ties=len(labels) - len(answers),
        predicted_ties=int((values == 0).sum()),
        threshold=None,
    )


def check_pairs(differences: Tensor, labels: Tensor) -> Float64[Tensor, " pair"]:
    """The differences in float64, once differences and labels have passed as pairs.

    Raises:
        ValueError: with the index of the first pair at fault and how many there are.
    """
    if differences.ndim != 1 or differences.shape != labels.shape or len(labels) == 0:
        raise ValueError(
            "expected one difference and one label per pair, at least one pair; "
            f"got shapes {tuple(differences.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers (+1, -1, 0), got {labels.dtype}")
    undefined = (~differences.isfinite()).nonzero().flatten().tolist()
    if undefined:
        raise ValueError(
            f"pair {undefined[0]} has the difference {differences[undefined[0]].item()} "
            f"({len(undefined)} of {len(labels)} pairs are not finite)"
        )
    unknown = ((labels < -1) | (labels > 1)).nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"pair {unknown[0]} has the label {labels[unknown[0]].item()} ({len(unknown)} of "
            f"{len(labels)} pairs): expected +1 (A), -1 (B) or 0 (tie)"
        )
    return differences.detach().double()


def correct_by_threshold(
    values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"]
) -> tuple[Float64[Tensor, " threshold"], Int[Tensor, " threshold"]]:
    """Candidate thresholds in ascending order, and how many pairs are right at each."""
    size, order = values.abs().sort()
    right, tied = (values.sign() == labels)[order], (labels == 0)[order]
    # Each pair that becomes a tie is right from there on, or not; (0, 0) is right either way.
    gain = tied.long() - right.long()
    thresholds, counts = torch.cat([size.new_zeros(1), size]).unique_consecutive(return_counts=True)
    last = counts.cumsum(0) - 1  # position after the last pair within the threshold
    return thresholds, right.sum() + torch.cat([gain.new_zeros(1), gain.cumsum(0)])[last]


def best_threshold(values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"]) -> float:
    """The smallest of the thresholds with the most right answers."""
    thresholds, correct = correct_by_threshold(values, labels)
    return thresholds[correct.argmax()].item()  # argmax: the first of equals


def at_threshold(
    values: Float64[Tensor, " pair"], labels: Int[Tensor, " pair"], threshold: float
) -> TieAccuracy:
    """What `accuracy_at_threshold` returns, for pairs that were checked."""
    answers = values.sign().masked_fill(values.abs() <= threshold, 0)
    return TieAccuracy(
        accuracy=int((answers == labels).sum()) / len(labels),
        pairs=len(labels),
        human_ties=int((labels == 0).sum()),
        predicted_ties=int((answers == 0).sum()),
        threshold=threshold,
    )
