"""Comparisons whose label is a probability, such as a share of votes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

PairLoss = Callable[[Tensor, Tensor, Tensor], Float[Tensor, " pair"]]
"""Scores of the first and second clips and labels (+1, 0, -1) -> loss of each pair."""

LABELS = (1, 0, -1)
"""The label that each column of outcome shares stands for."""


def outcome_shares(
    labels: Sequence[int],
    probabilities: Sequence[float | None],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, "pair 3"]:
    """Weights of the outcomes first, tie and second in each pair; a row adds up to its weight.

    Args:
        labels: +1, 0 or -1, which count where there is no probability.
        probabilities: that the first clip is better; None: the label counts.
        weights: how many comparisons each pair counts as; None: one.
    """
    shares = [
        [float(label == outcome) for outcome in LABELS]
        if probability is None
        else [probability, 0.0, 1.0 - probability]
        for label, probability in zip(labels, probabilities, strict=True)
    ]
    table = torch.tensor(shares, dtype=torch.float64).reshape(-1, 3)
    if weights is not None:
        table *= torch.tensor(weights, dtype=torch.float64)[:, None]
    return table


def expected_side(shares: Float[Tensor, "pair 3"]) -> Float[Tensor, " pair"]:
    """Mean of the labels +1, 0 and -1 of each pair, by its shares."""
    return (shares[:, 0] - shares[:, 2]) / shares.sum(dim=1)


def expected_loss(
    loss: PairLoss,
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    shares: Float[Tensor, "pair 3"],
) -> Float[Tensor, " pair"]:
    """A loss of labels, averaged over the outcomes that a pair stands for.

        L = share(first) · ℓ(+1) + share(tie) · ℓ(0) + share(second) · ℓ(-1)

    With one outcome of share 1 it is ℓ itself. For a probability p under Bradley-Terry it is the
    cross entropy of p and σ(d), which is least where σ(d) = p. An outcome without a share is not
    computed, so that a loss without ties can be used where there are none.

    Args:
        loss: of scores and labels, unreduced, e.g. `bradley_terry_loss`.
        first: scores of the first clips.
        second: scores of the second clips.
        shares: of the outcomes first, tie, second; see `outcome_shares`.

    Returns:
        Loss of each pair, times its weight.
    """
    pair, column = shares.nonzero(as_tuple=True)
    labels: Int[Tensor, " outcome"] = torch.tensor(LABELS, device=shares.device)[column]
    losses = loss(first[pair], second[pair], labels)
    weighted = losses * shares[pair, column].to(losses.dtype)
    return weighted.new_zeros(len(shares)).index_add(0, pair, weighted)
