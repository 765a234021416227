"""Stages 1 and 2 of clips whose features stay with the processes that read them."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.judge.posterior import Projection, precision_of, root_of
from gtsvj_reward.training.closed_form.primal import ROWS_AT_ONCE
from gtsvj_reward.training.closed_form.ridge import Fit, penalties_of_search
from gtsvj_reward.training.closed_form.shares import (
    Share,
    added_up,
    fit_share,
    searched_rows,
)
from gtsvj_reward.training.closed_form.sketch import BlockProjection
from gtsvj_reward.training.closed_form.stages import (
    LEAST_DEVIATION,
    Solved,
    Standard,
    energy_input,
    folded,
    noise_between,
)


def shared_standard(features: Float[Tensor, "own feature"]) -> Standard:
    """Mean and deviation over the rows of all processes.

    Raises:
        ValueError: for fewer than three rows.
    """
    count = added_up(torch.tensor(float(len(features)), dtype=torch.float64))
    if count < 3:
        raise ValueError(f"{count:g} clips to standardise features by: at least 3 are needed")
    mean = added_up(torch.stack([part.sum(dim=0) for part in chunks(features)]).sum(dim=0)) / count
    squares = [(part - mean).square().sum(dim=0) for part in chunks(features)]
    deviation = (added_up(torch.stack(squares).sum(dim=0)) / (count - 1)).sqrt()
    return Standard(mean, deviation.clamp_min(LEAST_DEVIATION))


def solve_spread(
    place: Int[Tensor, " own"],
    features: Float[Tensor, "own feature"],
    standard: Standard,
    projection: BlockProjection,
    widths: Sequence[int],
    targets: Float[Tensor, "row output"],
    groups: Int[Tensor, " row"],
    weights: Float[Tensor, " row"],
    *,
    energy: Fit | None,
    seed: int | None,
) -> Solved:
    """Ridge regression in a projection; all processes call it together and get the same.

    Errors that rows of a group share are not estimated.

    Args:
        place: which of all rows this process holds.
        features: of them, as they were read.
        standard: of all rows.
        projection: in which the regression is solved.
        widths: of the taps.
        targets: of all rows, NaN where there is none; likewise `groups` and `weights`.
        groups: rows of one number are left out together.
        weights: of the rows.
        energy: an input without a penalty; None: none.
        seed: of the projection that the posterior is kept in; None: no posterior.
    """
    # Filled part by part: a second copy of it would be as much as the features themselves.
    bins = torch.empty(len(features), sum(projection.widths), dtype=torch.float64)
    free = torch.empty(len(features), int(energy is not None), dtype=torch.float64)
    for part, into, inputs in zip(
        chunks(features, standard), bins.split(ROWS_AT_ONCE), free.split(ROWS_AT_ONCE), strict=True
    ):
        into.copy_(projection(part))
        inputs.copy_(energy_input(part, energy))
    share = Share(place, bins, projection.widths, free)
    rows, index = searched_rows(share, groups, weights)
    chosen = penalties_of_search(rows, targets[index])
    fit, fitted, left_out = fit_share(share, targets, groups, weights, chosen.penalties)
    fit = folded(projection.unfold(fit), energy)
    if seed is None:
        return Solved(fit, chosen, left_out)
    each = torch.tensor(chosen.penalties).repeat_interleave(torch.tensor(tuple(widths)))
    kept = Projection(each.rsqrt(), seed=seed).double()
    projected = torch.cat([kept(part) for part in chunks(features, standard)])
    inputs = torch.cat([share.free.new_ones(len(place), 1), share.free], dim=1)
    precision = added_up(precision_of(projected, inputs, weights[place]))
    noise = noise_between(weights, targets - fitted, targets - left_out)
    return Solved(fit, chosen, left_out, root_of(precision, inputs.shape[1]), noise)


def chunks(features: Tensor, standard: Standard | None = None) -> Iterator[Tensor]:
    """Some rows at a time in float64, at least one part, standardised if that is known."""
    for part in features.split(ROWS_AT_ONCE):
        yield part.double() if standard is None else standard(part)
