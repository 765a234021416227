"""Correlation of two lists of scores."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from gtsvj_reward.metrics.arrays import Scores, as_tensor


def pearson(first: Scores, second: Scores) -> float:
    """Linear correlation, -1..1, computed in float64.

    Args:
        first: scores of at least two clips.
        second: other scores of the same clips, for example people's.

    Raises:
        ValueError: unequal lengths, fewer than two, a score that is not finite, or constant scores,
            for which the correlation is undefined.
    """
    one, other = _checked(first, second)
    product = _direction(one.double()) @ _direction(other.double())
    return min(1.0, max(-1.0, product.item()))  # rounding must not push it beyond


def spearman(first: Scores, second: Scores) -> float:
    """Correlation of the ranks, -1..1; equal scores share the mean of their ranks.

    Args:
        first: as for `pearson`.
        second: as for `pearson`.

    Raises:
        ValueError: as for `pearson`.
    """
    one, other = _checked(first, second)
    return pearson(average_ranks(one), average_ranks(other))


def average_ranks(values: Float[Tensor, " clip"]) -> Float64[Tensor, " clip"]:
    """Ranks from 1, ascending; equal values share the mean of the ranks they take up."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2
    shared: Tensor = ranks[inverse]
    return shared


def _direction(values: Tensor) -> Tensor:
    """The values without their mean, as a vector of length 1."""
    # Scaled before each square, so that very large and very small scores survive it.
    scaled = values / values.abs().max()
    centred = scaled - scaled.mean()
    centred = centred / centred.abs().max()
    unit: Tensor = centred / torch.linalg.vector_norm(centred)
    return unit


def _checked(first: Scores, second: Scores) -> tuple[Tensor, Tensor]:
    one, other = as_tensor(first, "first"), as_tensor(second, "second")
    if one.ndim != 1 or one.shape != other.shape or len(one) < 2:
        raise ValueError(
            "expected two equally long lists of scores, at least two each; "
            f"got shapes {tuple(one.shape)} and {tuple(other.shape)}"
        )
    for name, values in {"first": one, "second": other}.items():
        undefined = (~values.isfinite()).nonzero().flatten().tolist()
        if undefined:
            raise ValueError(
                f"`{name}` has {values[undefined[0]].item()} at index {undefined[0]} "
                f"({len(undefined)} of {len(values)} are not finite)"
            )
        if (values == values[0]).all():
            raise ValueError(
                f"`{name}` is {values[0].item():g} for all {len(values)} clips: correlation with a "
                "constant is undefined"
            )
    return one, other
