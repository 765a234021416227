"""Agreement of scores with votes, and their likelihood."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from gtsvj_reward.evaluation.accuracies import interval
from gtsvj_reward.evaluation.pairs import Pairs
from gtsvj_reward.evaluation.result import EvaluationSettings, Votes
from gtsvj_reward.evaluation.win_rates import UndefinedScaleError, most_likely_scale
from gtsvj_reward.metrics import vote_agreement


def measure_votes(pairs: Pairs, settings: EvaluationSettings) -> Votes:
    """Agreement with votes, with an interval, and the log loss at the most likely scale."""
    found = vote_agreement(pairs.differences, pairs.probabilities, pairs.weights)

    def agreement(chosen: Int[Tensor, " _"]) -> float:
        return vote_agreement(
            pairs.differences[chosen], pairs.probabilities[chosen], pairs.weights[chosen]
        ).agreement

    scale: float | None = None
    try:
        scale = vote_scale(pairs)
    except UndefinedScaleError:
        scale = None
    p, share = pairs.probabilities, pairs.weights / pairs.weights.sum()
    each = torch.special.entr(p) + torch.special.entr(1 - p)
    log_loss = None
    if scale is not None:
        logits = pairs.differences / scale
        losses = -p * logsigmoid(logits) - (1 - p) * logsigmoid(-logits)
        log_loss = (share * losses).sum().item()
    return Votes(
        agreement=found.agreement,
        interval=interval(agreement, pairs, settings),
        ceiling=found.ceiling,
        log_loss=log_loss,
        entropy=(share * each).sum().item(),
        scale=scale,
        pairs=found.pairs,
        weight=found.weight,
    )


def vote_scale(pairs: Pairs) -> float:
    """The most likely scale of the votes.

    A share p of votes for A is p of a pair that A won and 1 - p of one that B won.

    Raises:
        UndefinedScaleError: as `fit_scale`.
    """
    p = pairs.probabilities
    signed: Float[Tensor, " vote"] = torch.cat([pairs.differences, -pairs.differences])
    weights = torch.cat([p, 1 - p]) * pairs.weights.repeat(2)
    return most_likely_scale(signed[weights > 0], weights[weights > 0])
