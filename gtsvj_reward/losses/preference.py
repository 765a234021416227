"""Objectives on pairs of clips that people compared.

All are negative log-likelihoods in nats, per pair. `first` and `second` are scores, higher being
better; a label is +1 where people preferred the first clip, -1 where they preferred the second, 0
where they saw no difference. Swapping the clips and the sign of the label changes nothing.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.losses.reduction import Reduction, at_least_float32, check_reduction


def bradley_terry_loss(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"],
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    """Bradley-Terry loss (Eqs. 5-6).

    With d = first - second, P(first) = σ(d) and P(second) = σ(-d): only the difference counts.

    Args:
        first: scores of the first clips, in logits.
        second: scores of the second clips, in logits.
        labels: +1 or -1.
        reduction: `"none"` gives the loss per pair, `"mean"` their mean.

    Returns:
        Loss per pair, or a scalar; half-precision scores are read in float32.

    Raises:
        ValueError: ties among the labels, other labels, shapes that differ, no pairs, or an unknown
            reduction.
    """
    _check(first, second, labels, reduction)
    _refuse_ties(
        labels,
        "the Bradley-Terry model has none. Use `rao_kupper_loss` or "
        "`bradley_terry_with_ties_loss`, or leave these pairs out",
    )
    gap = at_least_float32(first) - at_least_float32(second)
    loss = -F.logsigmoid(torch.where(labels > 0, gap, -gap))
    return loss.mean() if reduction == "mean" else loss


def bradley_terry_with_ties_loss(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"],
    gamma: float = 1.0,
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    """Bradley-Terry loss with ties, as the paper prints it (Eq. 7).

    With a = e^{first/γ} and b = e^{second/γ},

        P(first)  = a / (a + b + 1)
        P(second) = b / (a + b + 1)
        P(tie)    = 1 / (a + b + 1)

    The paper prints the first line; the last is what it leaves over. It is not shift-invariant: a
    tie competes as a third clip of score 0, so P(tie) shrinks when both scores rise and grows when
    both fall. Ties therefore train the level of the scores, not their nearness. `rao_kupper_loss`
    is the shift-invariant form of the model that the paper cites.

    Args:
        first: scores of the first clips; γ of them are a logit.
        second: scores of the second clips.
        labels: +1, -1, or 0 for a tie.
        gamma: γ > 0, the temperature.
        reduction: as for `bradley_terry_loss`.

    Returns:
        Loss per pair, or a scalar; half-precision scores are read in float32.

    Raises:
        ValueError: a gamma that is not positive and finite, other labels, shapes that differ, no
            pairs, or an unknown reduction.
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"`gamma` must be positive and finite, got {gamma}")
    _check(first, second, labels, reduction)
    scores = torch.stack([at_least_float32(first), at_least_float32(second)]) / gamma
    logits = torch.cat([torch.zeros_like(scores[:1]), scores])
    # Rows are tie, first, second.
    row = torch.where(labels < 0, 2, labels.long())
    loss = -logits.log_softmax(dim=0).gather(0, row[None])[0]
    return loss.mean() if reduction == "mean" else loss


def rao_kupper_loss(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"],
    threshold: float,
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    """Loss of the comparison model with ties of Rao & Kupper (1967), which is shift-invariant.

    With d = first - second and c = log θ,

        P(first)  = σ(d - c)
        P(second) = σ(-d - c)
        P(tie)    = (e^{2c} - 1) σ(d - c) σ(-d - c)

    A tie is likeliest at d = 0, with probability (θ - 1) / (θ + 1). c = 0 is `bradley_terry_loss`;
    VideoReward uses θ = 5.

    Args:
        first: scores of the first clips, in logits.
        second: scores of the second clips, in logits.
        labels: +1, -1, or 0 for a tie.
        threshold: c >= 0, in logits.
        reduction: as for `bradley_terry_loss`.

    Returns:
        Loss per pair, or a scalar; half-precision scores are read in float32.

    Raises:
        ValueError: a threshold that is negative or not finite, ties at threshold 0 (their
            probability is 0), other labels, shapes that differ, no pairs, or an unknown reduction.
    """
    if not 0 <= threshold < math.inf:
        raise ValueError(f"`threshold` must be >= 0 logits and finite, got {threshold}")
    _check(first, second, labels, reduction)
    if threshold == 0:
        _refuse_ties(
            labels,
            "at `threshold=0` a tie has probability 0. Use a positive threshold, or leave these "
            "pairs out",
        )
        log_prior = 0.0  # of no pair
    else:
        # log(e^{2c} - 1), for any c.
        log_prior = 2 * threshold + math.log(-math.expm1(-2 * threshold))
    gap = at_least_float32(first) - at_least_float32(second)
    log_first, log_second = F.logsigmoid(gap - threshold), F.logsigmoid(-gap - threshold)
    log_tie = log_first + log_second + log_prior
    loss = -torch.where(labels == 0, log_tie, torch.where(labels > 0, log_first, log_second))
    return loss.mean() if reduction == "mean" else loss


def _check(first: Tensor, second: Tensor, labels: Tensor, reduction: str) -> None:
    """Reject what is not a batch of labelled pairs."""
    check_reduction(reduction)
    shapes = tuple(first.shape), tuple(second.shape), tuple(labels.shape)
    if first.ndim != 1 or len(set(shapes)) > 1 or len(first) == 0:
        raise ValueError(
            "expected two scores and one label per pair, at least one pair; "
            f"got shapes {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers (+1, -1, 0), got {labels.dtype}")
    unknown = ((labels < -1) | (labels > 1)).nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"pair {unknown[0]} has the label {labels[unknown[0]].item()} ({len(unknown)} of "
            f"{len(labels)} pairs): expected +1 (first), -1 (second) or 0 (tie)"
        )


def _refuse_ties(labels: Tensor, reason: str) -> None:
    ties = (labels == 0).nonzero().flatten().tolist()
    if ties:
        raise ValueError(
            f"{len(ties)} of {len(labels)} pairs are ties (label 0; the first is pair {ties[0]}): "
            f"{reason}"
        )
