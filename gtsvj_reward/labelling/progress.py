"""Progress of the judge: its accuracy on predictions made before a label was known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gtsvj_reward.labelling.labels import Answer
from gtsvj_reward.metrics import proportion_interval
from gtsvj_reward.metrics.student import student_quantile

LEAST = 20
"""Minimum number of predictions for a trend."""
RECENT = 50
"""Number of latest predictions that measure the current accuracy."""


@dataclass(frozen=True)
class Trial:
    """A random pair whose outcome was predicted."""

    labels: int
    """Labels that the judge was fitted to when it predicted."""
    right: float
    """1, 0, or 1/2 where it had no preference."""


def trials(answers: Sequence[Answer]) -> list[Trial]:
    """Predictions for random pairs without ties, in the order of their answers."""
    found = []
    for answer in answers:
        task = answer.task
        if task.choice == "random" and task.predicted is not None and answer.label:
            side = (task.predicted > 0.5) - (task.predicted < 0.5)
            found.append(Trial(task.labels, (1 + side * answer.label) / 2))
    return found


def accuracy(found: Sequence[Trial]) -> dict[str, Any] | None:
    """Share of right predictions among the latest ones, with Wilson's 95% interval."""
    recent = found[-RECENT:]
    if not recent:
        return None
    share = sum(trial.right for trial in recent) / len(recent)
    low, high = proportion_interval(share, len(recent))
    return {"share": share, "low": low, "high": high, "pairs": len(recent)}


def curve(found: Sequence[Trial]) -> list[list[float]]:
    """(labels known, share of the `RECENT` predictions up to there that were right), for a plot."""
    points = []
    for end in range(min(10, len(found)), len(found) + 1, 5):
        recent = found[max(0, end - RECENT) : end]
        if recent:
            share = sum(trial.right for trial in recent) / len(recent)
            points.append([recent[-1].labels, share])
    return points


def last_point(found: Sequence[Trial], labels: int) -> dict[str, Any] | None:
    """How many labels the latest percentage point of accuracy took.

    Least squares of right or wrong on the logarithm of the labels known, accuracy = a + b log n:
    with n labels the last point took n (1 - exp(-0.01 / b)). The smallest and the largest b of a
    95% interval give the upper and the lower number; if b may be 0, there is no significant rise.

    Returns:
        `cost` and `at_most` labels, each None without a significant rise; None for fewer than
        `LEAST` predictions that were made after the first fit, or all at one number of labels.
    """
    later = [trial for trial in found if trial.labels > 0]
    places = [math.log(trial.labels) for trial in later]
    if len(later) < LEAST or max(places) == min(places):
        return None
    centre = sum(places) / len(places)
    share = sum(trial.right for trial in later) / len(later)
    spread = sum((place - centre) ** 2 for place in places)
    slope = (
        sum((p - centre) * (t.right - share) for p, t in zip(places, later, strict=True)) / spread
    )
    left = sum(
        (t.right - share - slope * (p - centre)) ** 2 for p, t in zip(places, later, strict=True)
    )
    degrees = len(later) - 2
    error = student_quantile(0.025, degrees) * math.sqrt(left / degrees / spread)

    def cost(rise: float) -> int | None:
        return math.ceil(labels * -math.expm1(-0.01 / rise)) if rise > 0 else None

    return {"cost": cost(slope), "at_most": cost(slope - error), "predictions": len(later)}


def rating_error(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Mean absolute error of predicted ratings of random clips, and of predicting the mean.

    The mean is over the ratings of that aspect before, as the prediction was.
    """
    errors, plain = [], []
    sums: dict[str, list[float]] = {}
    for answer in answers:
        predicted = answer.task.predicted or {}
        for aspect, score in (answer.scores or {}).items():
            before = sums.setdefault(aspect, [])
            if answer.task.choice == "random" and aspect in predicted and before:
                errors.append(abs(predicted[aspect] - score))
                plain.append(abs(sum(before) / len(before) - score))
            before.append(score)
    recent = errors[-RECENT:]
    if not recent:
        return None
    mean = sum(recent) / len(recent)
    return {
        "error": mean,
        "half": interval_half(recent),
        "of_the_mean": sum(plain[-RECENT:]) / len(recent),
        "ratings": len(recent),
    }


def interval_half(values: Sequence[float]) -> float | None:
    """Half of a 95% interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean, degrees = sum(values) / len(values), len(values) - 1
    variance = sum((value - mean) ** 2 for value in values) / degrees
    return student_quantile(0.025, degrees) * math.sqrt(variance / len(values))
