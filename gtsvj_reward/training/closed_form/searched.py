"""The rows on which penalties are chosen, and what can be learnt from their targets."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SEARCH_ROWS = 700
"""Rows on which penalties are chosen; all of them are used in the fit itself."""


def thinned(groups: Int[Tensor, " row"], limit: int) -> Int[Tensor, " kept"]:
    """Indices of at most about `limit` rows, in whole groups spread evenly over all of them."""
    names, members, counts = groups.unique(return_inverse=True, return_counts=True)
    if len(groups) <= limit:
        return torch.arange(len(groups))
    kept = max(3, int(len(names) * limit / len(groups)))
    chosen = torch.linspace(0, len(names) - 1, min(kept, len(names))).round().long()
    keep = torch.zeros_like(counts, dtype=torch.bool)
    keep[chosen] = True
    return keep[members].nonzero()[:, 0]


def check_targets(groups: Int[Tensor, " row"], targets: Float[Tensor, "row output"]) -> None:
    """Refuse outputs that nothing can be learnt from.

    Raises:
        ValueError: with the first such output.
    """
    for output, values in enumerate(targets.T):
        there = ~values.isnan()
        found, count = values[there], len(groups[there].unique())
        if count < 3:
            raise ValueError(
                f"output {output} has labels in {count} groups of clips: at least 3 are needed, so "
                "that a penalty can be chosen on clips left out"
            )
        if bool((found == found[0]).all()):
            raise ValueError(
                f"output {output} is {found[0].item():g} for all {len(found)} clips: leave it out "
                "or label more clips"
            )


def searchable(
    groups: Int[Tensor, " row"], targets: Float[Tensor, "row output"]
) -> Bool[Tensor, " output"]:
    """Outputs that have labels in three groups of these rows, and not all the same.

    Few labels among many clips may be in none of the rows that are left when they are thinned.

    Raises:
        ValueError: if no output has.
    """
    present = ~targets.isnan()
    kept = [
        len(groups[there].unique()) >= 3 and len(values[there].unique()) > 1
        for values, there in zip(targets.T, present.T, strict=True)
    ]
    if not any(kept):
        raise ValueError(
            f"penalties are chosen on {len(groups)} of the rows, and no output has different "
            "labels in at least 3 groups of them: label more clips, or leave out those without "
            "labels"
        )
    return torch.tensor(kept)
