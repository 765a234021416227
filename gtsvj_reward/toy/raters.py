"""Simulated people: ratings and comparisons that follow from the severities of a clip's faults.

With severities s_k, the impression that a fault leaves adds up as if faults were independent, and
each aspect sees its own faults only:

    quality_a   = ∏_{k in a} (1 - s_k)                           in 0..1, 1 is flawless
    rating_a    = round(1 + 4 quality_a + ε),  ε ~ N(0, 0.5²)    clipped to 1..5 (Likert)
    utility     = 12 · Σ_a w_a quality_a                         in 0..12 logits

A comparison of utilities u and v follows Rao and Kupper (1967) with threshold c = 0.4: the first
wins with probability σ(u - v - c), the second with σ(v - u - c), else they tie.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

ASPECTS: dict[str, tuple[str, ...]] = {
    "steadiness": ("flicker", "jitter", "colour_drift"),
    "motion": ("stutter", "ghosting"),
    "clarity": ("blur", "noise"),
    "persistence": ("popping", "morphing"),
}
"""Aspect -> the faults that lower it."""

WEIGHTS: dict[str, float] = {
    "steadiness": 0.3,
    "motion": 0.25,
    "clarity": 0.2,
    "persistence": 0.25,
}
"""Weight of each aspect in a comparison; they add up to 1."""

LOW, HIGH = 1, 5
RATING_NOISE = 0.5
UTILITY_SCALE = 12.0
TIE_THRESHOLD = 0.4

Severities = Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """A rater's comparison of two clips."""

    label: int
    """1: the first is better; -1: the second; 0: a tie."""
    gap: float
    """Utility of the first minus that of the second, in logits, without rater noise."""


def qualities(severities: Severities) -> dict[str, float]:
    """Quality of each aspect in 0..1."""
    return {
        aspect: math.prod(1 - severities.get(fault, 0.0) for fault in faults)
        for aspect, faults in ASPECTS.items()
    }


def utility(severities: Severities) -> float:
    """How good a clip is, in logits, 0..12."""
    return UTILITY_SCALE * sum(
        WEIGHTS[name] * value for name, value in qualities(severities).items()
    )


def rate(severities: Severities, generator: torch.Generator) -> dict[str, int]:
    """One rater's Likert ratings 1..5 of each aspect."""
    ratings = {}
    for aspect, quality in qualities(severities).items():
        slip = RATING_NOISE * torch.randn((), generator=generator).item()
        ratings[aspect] = min(HIGH, max(LOW, round(LOW + (HIGH - LOW) * quality + slip)))
    return ratings


def compare(first: Severities, second: Severities, generator: torch.Generator) -> Comparison:
    """One rater's comparison of two clips."""
    gap = utility(first) - utility(second)
    wins = _sigmoid(gap - TIE_THRESHOLD)
    loses = _sigmoid(-gap - TIE_THRESHOLD)
    draw = torch.rand((), generator=generator).item()
    label = 1 if draw < wins else -1 if draw < wins + loses else 0
    return Comparison(label, gap)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
