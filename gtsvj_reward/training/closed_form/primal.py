"""Ridge regression with one unknown per feature, for more rows than features.

With D the features followed by the free inputs, W the row weights at mean 1 and p the penalties (0
for inputs), the weights are M^-1 D' W y with M = D' W D + diag(p). A group of rows G that is left
out has the residuals (I - D_G M^-1 D_G' W_G)^-1 r_G. It is the solution of the dual in
`gtsvj_reward.training.closed_form.ridge`, at n p^2 operations in place of n^3.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS_AT_ONCE = 1024
"""Rows of which copies are held."""

NEARLY_FREE = 1e-10
"""Penalty of an input per row, in place of 0, which would leave a constant one undetermined."""


def solve_primal(
    design: Float[Tensor, "row column"],
    penalties: Float[Tensor, " column"],
    weights: Float[Tensor, " row"],
    targets: Float[Tensor, "row output"],
    groups: Int[Tensor, " row"],
) -> tuple[Float[Tensor, "column output"], Float[Tensor, "row output"]]:
    """Weights of the columns, and residuals of each group by the fit that left it out.

    Args:
        design: features and free inputs, float64.
        penalties: of the columns; 0 for free inputs.
        weights: positive, of mean 1.
        targets: without gaps.
        groups: rows of one number are left out together.
    """
    precision = penalties.clamp_min(NEARLY_FREE * len(design)).diag()
    right = design.new_zeros(design.shape[1], targets.shape[1])
    for start in range(0, len(design), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        weighted = design[some] * weights[some, None]
        precision.addmm_(weighted.T, design[some])
        right.addmm_(weighted.T, targets[some])
    factor = torch.linalg.cholesky(precision)
    solution = torch.cholesky_solve(right, factor)
    residuals = targets - design @ solution
    order = groups.argsort(stable=True)
    counts = groups[order].unique_consecutive(return_counts=True)[1].tolist()
    left_out = torch.empty_like(residuals)
    for batch in batches(order.split(counts)):
        rows = torch.cat(batch)
        half = torch.linalg.solve_triangular(factor, design[rows].T, upper=False)
        start = 0
        for members in batch:
            own = half[:, start : start + len(members)]
            hat = own.T @ own * weights[members]
            identity = torch.eye(len(members)).to(hat)
            left_out[members] = torch.linalg.solve(identity - hat, residuals[members])
            start += len(members)
    return solution, left_out


def batches(groups: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """Whole groups together, about `ROWS_AT_ONCE` rows at a time."""
    found: list[list[Tensor]] = [[]]
    size = 0
    for members in groups:
        if size and size + len(members) > ROWS_AT_ONCE:
            found.append([])
            size = 0
        found[-1].append(members)
        size += len(members)
    return found
