"""Errors shared by the ratings of one group, such as one rater's scale for all clips of a prompt.

A rating is f(clip) + group effect + noise, with group effects of variance `share` times that of the
noise. Fit and posterior account for them: ten ratings of one group weigh less than ten ratings of
ten groups. Scores of clips do not include them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.training.closed_form.ridge import (
    Fit,
    Rows,
    by_mask,
    expanded,
    fit_ridge,
    weighted_kernel,
)
from gtsvj_reward.training.closed_form.searched import SEARCH_ROWS, searchable, thinned

SHARES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Variances of group effects that are compared, as multiples of that of the noise."""


def chosen_share(
    rows: Rows, targets: Float[Tensor, "row output"], penalties: Sequence[float]
) -> float:
    """The most likely of `SHARES`, by restricted maximum likelihood, the same for all outputs.

    It is 0 where no group has two rows. Rows are thinned as for the choice of penalties.
    """
    some = thinned(rows.groups, SEARCH_ROWS)
    rows, targets = rows.take(some), targets[some]
    if len(rows.groups.unique()) == len(rows.groups):
        return 0.0
    targets = targets[:, searchable(rows.groups, targets)]
    kernel = weighted_kernel(rows.features, expanded(penalties, rows.widths).to(rows.features))
    kernel.diagonal().add_(rows.weights.mean() / rows.weights)
    together = same_group(rows.groups)

    def likelihood(share: float) -> float:
        covariance = kernel + share * together
        return sum(
            restricted_likelihood(
                covariance[mask][:, mask], rows.inputs[mask], targets[mask][:, columns]
            )
            for mask, columns in by_mask(targets)
        )

    return max(SHARES, key=likelihood)


def restricted_likelihood(
    covariance: Float[Tensor, "row row"],
    inputs: Float[Tensor, "row input"],
    targets: Float[Tensor, "row output"],
) -> float:
    """Logarithm, up to a constant, with the covariance known but for its scale in each output."""
    factor = torch.linalg.cholesky(covariance)
    whole = torch.linalg.solve_triangular(factor, torch.cat([inputs, targets], dim=1), upper=False)
    white, goals = whole.split([inputs.shape[1], targets.shape[1]], dim=1)
    free = torch.linalg.lstsq(white, goals).solution
    degrees = len(targets) - inputs.shape[1]
    noise = (goals - white @ free).square().sum(dim=0) / degrees
    volume = 2 * factor.diagonal().log().sum() + torch.logdet(white.T @ white)
    return float(-0.5 * (degrees * noise.log() + volume).sum())


def fit_with_groups(
    rows: Rows, targets: Float[Tensor, "row output"], penalties: Sequence[float], share: float
) -> tuple[Fit, Float[Tensor, "row output"], Float[Tensor, "row output"]]:
    """Ridge regression with an effect for each group.

    Returns:
        The readout without the effects; what the fit says of its rows, effects included; and the
        predictions of fits that left a row's group out, which know no effect of it.
    """
    if not share:
        fit, left_out = fit_ridge(rows, targets, penalties)
        return fit, fit(rows.features, rows.free), left_out
    members = F.one_hot(rows.groups.unique(return_inverse=True)[1]).to(rows.features)
    wide = Rows(
        torch.cat([rows.features, members], dim=1),
        (*rows.widths, members.shape[1]),
        rows.groups,
        rows.weights,
        rows.free,
    )
    fit, left_out = fit_ridge(wide, targets, (*penalties, 1 / share))
    readout = Fit(fit.weight[:, : sum(rows.widths)], fit.free, fit.bias)
    return readout, fit(wide.features, wide.free), left_out


def lost_to_groups(
    design: Float[Tensor, "row column"], groups: Int[Tensor, " row"], share: float
) -> Float[Tensor, "column column"]:
    """What unknown group effects take from the precision X' X of a fit with row weights of 1."""
    if not share:
        return design.new_zeros(design.shape[1], design.shape[1])
    _, place, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = design.new_zeros(len(counts), design.shape[1]).index_add_(0, place, design)
    lost: Tensor = sums.T @ (sums / (counts + 1 / share)[:, None])
    return lost


def same_group(groups: Int[Tensor, " row"]) -> Float[Tensor, "row row"]:
    """1 for two rows of one group."""
    return (groups[:, None] == groups[None]).double()
