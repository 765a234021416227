"""Ridge regression with a penalty per block of features, and its leave-one-group-out errors.

For more rows than features that is done in `primal.py`, else in the dual: with
K = sum_b X_b X_b' / penalty_b, row weights W and free (unpenalised) inputs Z, the fitted function
is K a + Z g with

    V = K + W^-1,   P = V^-1 - V^-1 Z (Z' V^-1 Z)^-1 Z' V^-1,   a = P y.

The residual of a group of rows G when it is left out, penalties held fixed, is P_GG^-1 a_G
(Dubrule 1983, Cross validation of kriging in a unique neighborhood); the free inputs are fitted
again as well. So one factorisation gives the errors of all groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.training.closed_form.primal import ROWS_AT_ONCE, solve_primal
from gtsvj_reward.training.closed_form.searched import (
    SEARCH_ROWS,
    searchable,
    thinned,
)

SCAN = tuple(range(-4, 7))
"""Decades of the first scan, of one over the penalty of features scaled to trace 1 per row."""

STEPS = (1.0, 0.5)
"""Decades by which the search then moves the penalty of one block at a time."""

GAIN = 1e-3
"""The search goes on for as long as a step lowers the error by this share of it."""


@dataclass(frozen=True)
class Rows:
    """Clips as rows of a regression, float64."""

    features: Float[Tensor, "row feature"]
    """Standardised features, block after block."""
    widths: tuple[int, ...]
    """Features of each block."""
    groups: Int[Tensor, " row"]
    """Rows of one number are left out together: a source clip with its perturbations, a prompt."""
    weights: Float[Tensor, " row"]
    """Positive; only their ratios count."""
    free: Float[Tensor, "row input"]
    """Inputs without a penalty; a constant is added."""

    def __post_init__(self) -> None:
        if self.features.shape[1] != sum(self.widths):
            raise ValueError(
                f"{self.features.shape[1]} features in blocks of {self.widths}: the widths must "
                "add up"
            )
        if not bool((self.weights > 0).all()):
            raise ValueError("the weights of rows must be positive")

    def take(self, index: Tensor) -> "Rows":
        """Some of the rows, by integer index or mask."""
        return replace(
            self,
            features=self.features[index],
            groups=self.groups[index],
            weights=self.weights[index],
            free=self.free[index],
        )

    @property
    def blocks(self) -> tuple[Float[Tensor, "row feature"], ...]:
        """The features of each block."""
        parts: tuple[Tensor, ...] = self.features.split(self.widths, dim=1)
        return parts

    def scales(self) -> Float[Tensor, " block"]:
        """Mean over the rows of the squared length of each block; 1 for one that is all zero."""
        means = torch.stack([block.square().sum(dim=1).mean() for block in self.blocks])
        return torch.where(means > 0, means, torch.ones_like(means))

    def kernels(self) -> Float[Tensor, "block row row"]:
        """X_b X_b' of each block, divided by its scale."""
        products = torch.stack([block @ block.T for block in self.blocks])
        return products / self.scales()[:, None, None]

    @property
    def inputs(self) -> Float[Tensor, "row input"]:
        """The free inputs with the constant in front."""
        return torch.cat([torch.ones_like(self.weights)[:, None], self.free], dim=1)


@dataclass(frozen=True)
class Fit:
    """A linear readout of standardised features and free inputs."""

    weight: Float[Tensor, "output feature"]
    """Of the features."""
    free: Float[Tensor, "output input"]
    """Of the free inputs, without the constant."""
    bias: Float[Tensor, " output"]
    """The constant."""

    def __call__(self, features: Tensor, free: Tensor) -> Float[Tensor, "row output"]:
        """Fitted values of any rows."""
        return features @ self.weight.T + free @ self.free.T + self.bias


@dataclass(frozen=True)
class Penalties:
    """How strongly each block is penalised, and what that gives on clips left out."""

    penalties: tuple[float, ...]
    """Per block, of the sum of squares of its weights; row weights have mean 1."""
    left_out_error: float
    """Weighted squared error of groups left out, as a share of that of the weighted mean; 1 is no
    better than a constant."""
    tried: int
    """Penalties that were compared."""


def fit_ridge(
    rows: Rows, targets: Float[Tensor, "row output"], penalties: Sequence[float]
) -> tuple[Fit, Float[Tensor, "row output"]]:
    """Ridge regression of each output; rows without a target (NaN) do not count for it.

    Returns:
        The readout, and for each row the prediction of the fit that left its group out (NaN where
        there is no target).
    """
    widths, outputs = rows.widths, targets.shape[1]
    weight = rows.features.new_zeros(outputs, sum(widths))
    free = rows.features.new_zeros(outputs, rows.free.shape[1])
    bias = rows.features.new_zeros(outputs)
    left_out = torch.full_like(targets, float("nan"))
    per_feature = expanded(penalties, widths).to(weight)
    for mask, columns in by_mask(targets):
        some = rows if bool(mask.all()) else rows.take(mask)
        goal = targets[mask][:, columns]
        if len(some.features) > sum(widths):
            design = torch.cat([some.features, some.inputs], dim=1)
            each = torch.cat([per_feature, torch.zeros(some.inputs.shape[1]).to(per_feature)])
            relative = some.weights / some.weights.mean()
            solved, residuals = solve_primal(design, each, relative, goal, some.groups)
            weight[columns], inputs = solved[: sum(widths)].T, solved[sum(widths) :]
        else:
            kernel = weighted_kernel(some.features, per_feature)
            dual, inputs, residuals = solve(kernel, some, goal)
            weight[columns] = (dual.T @ some.features) / per_feature
        bias[columns], free[columns] = inputs[0], inputs[1:].T
        place = mask.nonzero()[:, 0]
        left_out[place[:, None], columns[None]] = goal - residuals
    return Fit(weight, free, bias), left_out


def choose_penalties(rows: Rows, targets: Float[Tensor, "row output"]) -> Penalties:
    """Penalties with the least leave-one-group-out error, shared by all outputs.

    First the common strength is scanned, then the blocks move one at a time. More than
    `SEARCH_ROWS` rows are thinned, whole groups at a time: a penalty weighs features against the
    noise of a row, so that it does not depend on how many rows there are.

    Raises:
        ValueError: for targets of which none varies in three groups; see `check_targets`.
    """
    some = thinned(rows.groups, SEARCH_ROWS)
    return penalties_of_search(rows.take(some), targets[some])


def penalties_of_search(rows: Rows, targets: Float[Tensor, "row output"]) -> Penalties:
    """`choose_penalties` on rows that were thinned; outputs that they do not show do not count.

    Raises:
        ValueError: if they show none.
    """
    targets = targets[:, searchable(rows.groups, targets)]
    scales, kernels = rows.scales(), rows.kernels()
    bare = replace(rows, features=rows.features[:, :0], widths=(0,))  # kernels stand for them
    parts = [
        (mask, bare.take(mask), targets[mask][:, columns]) for mask, columns in by_mask(targets)
    ]

    def error(decades: tuple[float, ...]) -> float:
        kernel = combined(kernels, decades)
        total = 0.0
        for mask, kept, goal in parts:
            _, _, residuals = solve(kernel[mask][:, mask], kept, goal)
            spread = weighted_variance(goal, kept.weights)
            total += (weighted_mean(residuals.square(), kept.weights) / spread).sum().item()
        return total / targets.shape[1]

    decades, least, tried = search(error, equal_shares(scales))
    return Penalties(to_penalties(scales, decades), least, tried)


def weighted_kernel(
    features: Float[Tensor, "row feature"], penalties: Float[Tensor, " feature"]
) -> Float[Tensor, "row row"]:
    """X diag(1 / penalties) X', one triangle of it computed, without a scaled copy of X."""
    kernel = features.new_empty(len(features), len(features))
    for start in range(0, len(features), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        upto = features[: some.stop]
        kernel[some, : some.stop] = (features[some] / penalties) @ upto.T
        kernel[:start, some] = kernel[some, :start].T
    return kernel


def equal_shares(scales: Float[Tensor, " block"]) -> list[float]:
    """Exponents at which all blocks have one penalty: a block counts by the length of its rows."""
    shares: list[float] = (scales / scales.sum()).log10().tolist()
    return shares


def combined(
    kernels: Float[Tensor, "block row row"], decades: Sequence[float]
) -> Float[Tensor, "row row"]:
    """Sum of the blocks' kernels, each times ten to the power of its exponent."""
    return torch.einsum("b,brs->rs", 10.0 ** torch.tensor(decades).to(kernels), kernels)


def to_penalties(scales: Float[Tensor, " block"], decades: Sequence[float]) -> tuple[float, ...]:
    """The penalty of each block, from the exponent of its scaled kernel."""
    return tuple((scales / 10.0 ** torch.tensor(decades).to(scales)).tolist())


def search(
    error: Callable[[tuple[float, ...]], float], shares: Sequence[float]
) -> tuple[tuple[float, ...], float, int]:
    """Least of a function of one exponent per block: a scan along the diagonal, then by blocks.

    Returns:
        The exponents, the error there, and how many were tried.
    """
    known: dict[tuple[float, ...], float] = {}

    def at(decades: Sequence[float]) -> float:
        key = tuple(round(decade, 6) for decade in decades)
        if key not in known:
            known[key] = error(key)
        return known[key]

    best = min(([share + decade for share in shares] for decade in SCAN), key=at)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            common = [[decade + sign * step for decade in best] for sign in (1, -1)]
            single = [
                [decade + sign * step * (place == block) for place, decade in enumerate(best)]
                for block in range(len(best))
                for sign in (1, -1)
            ]
            for candidate in common + (single if len(best) > 1 else []):
                inside = all(
                    SCAN[0] <= decade - share <= SCAN[-1]
                    for decade, share in zip(candidate, shares, strict=True)
                )
                if inside and at(candidate) < at(best) * (1 - GAIN):
                    best, moved = candidate, True
    return tuple(best), at(best), len(known)


def solve(
    kernel: Float[Tensor, "row row"], rows: Rows, targets: Float[Tensor, "row output"]
) -> tuple[Tensor, Tensor, Float[Tensor, "row output"]]:
    """Dual weights (row, output), weights of the inputs (input, output), left-out residuals.

    The kernel is used up: at 10,000 rows each such matrix takes 0.8 GB.
    """
    kernel.diagonal().add_(rows.weights.mean() / rows.weights)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
    inputs = rows.inputs
    across = inverse @ inputs  # (row, input)
    normal = inputs.T @ across
    free = torch.linalg.lstsq(normal, across.T @ targets).solution
    lost = across @ torch.linalg.pinv(normal, hermitian=True)
    projector = inverse.addmm_(lost, across.T, alpha=-1)
    dual = projector @ targets
    return dual, free, left_out_residuals(projector, dual, rows.groups)


def left_out_residuals(projector: Tensor, dual: Tensor, groups: Tensor) -> Tensor:
    """P_GG^-1 a_G for each group of rows."""
    residuals = dual / projector.diagonal()[:, None]  # of rows that are a group of their own
    order = groups.argsort(stable=True)
    counts = groups[order].unique_consecutive(return_counts=True)[1].tolist()
    for members in order.split(counts):
        if len(members) > 1:
            block = projector[members[:, None], members[None]]
            residuals[members] = torch.linalg.solve(block, dual[members])
    return residuals


def expanded(penalties: Sequence[float], widths: Sequence[int]) -> Float[Tensor, " feature"]:
    """The penalty of each feature, from that of its block."""
    each = torch.tensor(penalties, dtype=torch.float64)
    return each.repeat_interleave(torch.tensor(widths))


def by_mask(targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows that have a target (mask), and the outputs (indices) for which these are the ones."""
    present = ~targets.isnan()
    masks, members = present.T.unique(dim=0, return_inverse=True)
    return [(mask, (members == index).nonzero()[:, 0]) for index, mask in enumerate(masks)]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Over the rows, per output."""
    return (values * weights[:, None]).sum(dim=0) / weights.sum()


def weighted_variance(values: Tensor, weights: Tensor) -> Tensor:
    """Over the rows, per output."""
    return weighted_mean((values - weighted_mean(values, weights)).square(), weights)
