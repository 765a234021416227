"""How often scores order pairs of clips as they should, ties counted half."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch

from gtsvj_reward.metrics.arrays import Scores, as_tensor


@dataclass(frozen=True)
class PairwiseAccuracy:
    """Share of pairs that were ordered as they should be, and what it rests on."""

    accuracy: float
    """Share of pairs with the first clip scored higher, 0..1; a tie counts half."""
    pairs: int
    """Number of pairs."""
    ties: int
    """Number of pairs with exactly equal scores."""

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson score interval of the accuracy; see `proportion_interval`."""
        return proportion_interval(self.accuracy, self.pairs, confidence)


def pairwise_accuracy(first: Scores, second: Scores) -> PairwiseAccuracy:
    """How often the first clip of a pair scores higher than the second.

    Args:
        first: scores of the clips that should win; higher is better.
        second: scores of the clips that should lose.

    Raises:
        ValueError: shapes that differ, no pairs, or a score that is not a number.
    """
    winners, losers = as_tensor(first, "first"), as_tensor(second, "second")
    if winners.ndim != 1 or winners.shape != losers.shape or len(winners) == 0:
        raise ValueError(
            "expected two equally long lists of scores, at least one pair; "
            f"got shapes {tuple(winners.shape)} and {tuple(losers.shape)}"
        )
    undefined = torch.isnan(winners) | torch.isnan(losers)
    if undefined.any():
        raise ValueError(f"pair {int(undefined.nonzero()[0])} has a score that is NaN")
    wins = int((winners > losers).sum())
    ties = int((winners == losers).sum())
    pairs = len(winners)
    return PairwiseAccuracy(accuracy=(wins + ties / 2) / pairs, pairs=pairs, ties=ties)


def proportion_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Holds for independent trials: pairs that share a clip make the true interval wider. Unlike the
    normal approximation it stays inside 0..1 and keeps a width at 0 and 1. With ties counted as
    half it is somewhat too wide, since halves vary less than wins and losses.

    Args:
        share: observed proportion, 0..1.
        count: number of trials, at least 1.
        confidence: coverage, between 0 and 1.

    Returns:
        Lower and upper end, within 0..1.

    Raises:
        ValueError: an argument out of its range.
    """
    if not 0 <= share <= 1 or count < 1 or not 0 < confidence < 1:
        raise ValueError(
            "expected 0 <= `share` <= 1, `count` >= 1 and 0 < `confidence` < 1, "
            f"got {share}, {count} and {confidence}"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    margin = z / shrink * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    # Rounding must not push an end beyond 0, 1 or the share itself.
    return min(share, max(0.0, centre - margin)), max(share, min(1.0, centre + margin))
