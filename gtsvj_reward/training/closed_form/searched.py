"""The rows on which penalties are chosen, and what can be learnt from their targets."""

from collections.abc import Sequence

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


def check_targets(
    groups: Int[Tensor, " row"],
    targets: Float[Tensor, "row output"],
    names: Sequence[str],
    advice: str = "label more clips, or leave it out",
) -> None:
    """Reject outputs that nothing can be learnt from.

    Args:
        groups: of the rows.
        targets: as they were given, for messages; NaN where there is none.
        names: of the outputs, and of their rows: such as "aspect 'calm' of clips".
        advice: for an output that is the same everywhere.

    Raises:
        ValueError: with the first such output.
    """
    for name, values in zip(names, targets.T, strict=True):
        there = ~values.isnan()
        found, count = values[there], len(groups[there].unique())
        if count < 3:
            raise ValueError(
                f"{name}: labels in {count} groups, at least 3 are needed, so that a penalty can "
                "be chosen on groups left out"
            )
        if bool((found == found[0]).all()):
            raise ValueError(f"{name}: all {len(found)} are {found[0].item():g}: {advice}")


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
