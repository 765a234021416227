"""Ridge regression of rows that are spread over processes, on a random projection of features.

Each process holds the features of its own clips; labels, weights and groups, which are short, are
known to all. With D the projected features followed by the free inputs, the processes add up
D' W D and D' W y of each fold (see `primal.py` for the notation). The fit that leaves a fold out is
that of the other folds' sums. What a process holds is its own rows and a matrix per fold, and what
it sends is those matrices and a prediction per row, so that the method scales by adding machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.training.closed_form.primal import NEARLY_FREE, ROWS_AT_ONCE
from gtsvj_reward.training.closed_form.ridge import Fit, Rows, by_mask, expanded
from gtsvj_reward.training.closed_form.searched import SEARCH_ROWS, thinned

FOLDS = 10
"""Parts of the clips, whole groups together, of which each is predicted by a fit to the others."""

FOLD_SEED = 0


@dataclass(frozen=True)
class Share:
    """The rows of this process."""

    place: Int[Tensor, " own"]
    """Which of all rows they are."""
    features: Float[Tensor, "own feature"]
    """Standardised and projected, float64."""
    widths: tuple[int, ...]
    """Of the blocks after the projection."""
    free: Float[Tensor, "own input"]
    """Inputs without a penalty; a constant is added."""

    def parts(self, own: Tensor) -> list[Tensor]:
        """Rows of D by their numbers here, some at a time."""
        made = []
        for some in own.split(ROWS_AT_ONCE):
            features, free = self.features[some], self.free[some]
            made.append(torch.cat([features, features.new_ones(len(some), 1), free], dim=1))
        return made


def added_up(value: Tensor) -> Tensor:
    """Sum over the processes."""
    state = PartialState()
    if state.num_processes == 1:
        return value
    total: Tensor = reduce(value.to(state.device), reduction="sum")
    return total.to(value.device)


def put_together(place: Tensor, values: Float[Tensor, "own output"], count: int) -> Tensor:
    """Rows of all processes, NaN where no process has one."""
    found = [(place, values)]
    if PartialState().num_processes > 1:
        found = gather_object(found)
    rows = values.new_full((count, values.shape[1]), float("nan"))
    for where, some in found:
        rows[where] = some
    return rows


def searched_rows(share: Share, groups: Tensor, weights: Tensor) -> tuple[Rows, Tensor]:
    """The rows on which penalties are chosen, in all processes, and which of all rows they are."""
    index = thinned(groups, SEARCH_ROWS)
    own = torch.isin(share.place, index).nonzero()[:, 0]
    every = torch.cat([share.features[own], share.free[own]], dim=1)
    number = torch.full((len(groups),), -1)
    number[index] = torch.arange(len(index))
    together = put_together(number[share.place[own]], every, len(index))
    features, free = together.split([sum(share.widths), share.free.shape[1]], dim=1)
    return Rows(features, share.widths, groups[index], weights[index], free), index


def fold_of(groups: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
    """A fold for each row, whole groups together; the same in all processes."""
    members = groups.unique(return_inverse=True)[1]
    count = int(members.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(FOLD_SEED))
    return order[members] % min(FOLDS, count)


def fit_share(
    share: Share,
    targets: Float[Tensor, "row output"],
    groups: Int[Tensor, " row"],
    weights: Float[Tensor, " row"],
    penalties: Sequence[float],
) -> tuple[Fit, Float[Tensor, "row output"], Float[Tensor, "row output"]]:
    """Ridge regression of each output over the rows of all processes; NaN is no target.

    Returns:
        The readout of the projected features, its predictions, and for each row the prediction of
        the fit that left its fold out (both NaN where there is no target).
    """
    outputs, columns = targets.shape[1], sum(share.widths)
    inputs = 1 + share.free.shape[1]
    solution = targets.new_zeros(columns + inputs, outputs)
    inside, left_out = (targets.new_full((len(share.place), outputs), torch.nan) for _ in range(2))
    each = torch.cat([expanded(penalties, share.widths), torch.zeros(inputs).double()])
    for mask, some in by_mask(targets):
        relative = weights[share.place] / weights[mask].mean()
        folds = fold_of(groups[mask])
        numbers = torch.full((len(mask),), -1)
        numbers[mask] = folds
        own = [
            (numbers[share.place] == fold).nonzero()[:, 0] for fold in range(int(folds.max()) + 1)
        ]
        goals = targets[share.place][:, some]
        sums = [added_up(normal(share, rows, relative, goals)) for rows in own]
        total = torch.stack(sums).sum(dim=0)
        prior = each.clamp_min(NEARLY_FREE * int(mask.sum())).diag()
        solved = solve_normal(total, prior)
        solution[:, some] = solved
        for rows, fold_sum in zip(own, sums, strict=True):
            others = solve_normal(total - fold_sum, prior)
            for part, design in zip(rows.split(ROWS_AT_ONCE), share.parts(rows), strict=True):
                inside[part[:, None], some[None]] = design @ solved
                left_out[part[:, None], some[None]] = design @ others
    weight, free = solution[:columns].T, solution[columns:]
    fit = Fit(weight, free[1:].T, free[0])
    count = len(targets)
    return fit, put_together(share.place, inside, count), put_together(share.place, left_out, count)


def normal(share: Share, rows: Tensor, weights: Tensor, goals: Tensor) -> Float[Tensor, "column _"]:
    """[D' W D, D' W y] of some rows of this process."""
    columns = sum(share.widths) + 1 + share.free.shape[1]
    total = goals.new_zeros(columns, columns + goals.shape[1])
    for part, design in zip(rows.split(ROWS_AT_ONCE), share.parts(rows), strict=True):
        weighted = design * weights[part, None]
        total.addmm_(weighted.T, torch.cat([design, goals[part]], dim=1))
    return total


def solve_normal(total: Tensor, prior: Tensor) -> Float[Tensor, "column output"]:
    """(D' W D + prior)^-1 D' W y."""
    gram, right = total[:, : len(total)], total[:, len(total) :]
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram + prior))
