"""Do score differences mean probabilities? Predicted against observed win rates."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from gtsvj_reward.evaluation.result import WinRateBin, WinRates
from gtsvj_reward.metrics import proportion_interval

BINS = 10
"""Ranges of equal width that probabilities are sorted into."""


class UndefinedScaleError(ValueError):
    """No scale, positive and finite, makes the observed wins most likely."""


def fit_scale(differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"]) -> float:
    """The scale s of P(A wins) = σ((score A - score B) / s), by maximum likelihood.

    One-dimensional Bradley-Terry regression. The mean negative log-likelihood
    L(β) = mean log(1 + e^{-β h d}) with β = 1/s is convex, so the root of L' is found by bisection.

    Args:
        differences: d, score(A) - score(B).
        labels: h, +1 or -1; pairs with a human tie (0) are left out.

    Raises:
        UndefinedScaleError: if the maximum lies at β <= 0 (the scores rank pairs no better than
            chance) or at infinity (no pair is ranked wrongly), or there are no pairs without tie.
    """
    signed = (differences.double() * labels)[labels != 0]
    if len(signed) == 0:
        raise UndefinedScaleError("all pairs are human ties")
    return most_likely_scale(signed, torch.ones_like(signed))


def most_likely_scale(signed: Float[Tensor, " vote"], weights: Float[Tensor, " vote"]) -> float:
    """The scale for weighted votes; see `fit_scale`.

    Args:
        signed: score of the winner minus that of the loser, float64, at least one.
        weights: above 0.

    Raises:
        UndefinedScaleError: as `fit_scale`.
    """
    share = weights / weights.sum()
    if not (share * signed).sum() > 0:
        raise UndefinedScaleError("the scores order these pairs no better than chance")
    if not (signed < 0).any():
        raise UndefinedScaleError("no pair is ordered wrongly, so the best scale is 0")
    unit = signed.abs().max()
    signed = signed / unit

    def slope(beta: float) -> float:
        return float(-(share * signed * torch.sigmoid(-beta * signed)).sum())

    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(unit) / high


def win_rates(
    differences: Float[Tensor, " pair"], labels: Int[Tensor, " pair"], confidence: float = 0.95
) -> WinRates:
    """Observed win rates by ranges of the predicted one, at the fitted scale.

    The scale is fitted on the same pairs: with one parameter and many pairs the bias is small, but
    the curve shows the shape of the relation, not how well the scale generalises.

    Args:
        differences: score(A) - score(B).
        labels: +1, -1 or 0; pairs with a human tie are left out.
        confidence: of the intervals.

    Raises:
        UndefinedScaleError: see `fit_scale`.
    """
    scale = fit_scale(differences, labels)
    untied = labels != 0
    logits, won = differences.double()[untied] / scale, labels[untied] > 0
    predicted = torch.sigmoid(logits)
    position = (predicted * BINS).long().clamp(max=BINS - 1)
    bins = []
    for number in position.unique().tolist():
        here = position == number
        pairs, wins = int(here.sum()), int(won[here].sum())
        bins.append(
            WinRateBin(
                predicted=predicted[here].mean().item(),
                observed=wins / pairs,
                interval=proportion_interval(wins / pairs, pairs, confidence),
                pairs=pairs,
            )
        )
    log_loss = softplus(torch.where(won, -logits, logits)).mean().item()
    return WinRates(scale=scale, log_loss=log_loss, bins=tuple(bins))
