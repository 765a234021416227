"""Uncertainty of a linear readout: the ridge posterior in a random projection.

With standardised features z, penalties p per feature and unpenalised inputs, the weights of a ridge
regression have the posterior covariance noise * A^-1 with A = X' W X + diag(p). For tens of
thousands of features that is too large to keep, so it is kept for a random projection of
z / sqrt(p), whose inner products are those of the features up to the error of the projection.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

WIDTH = 512
"""Features after the projection; squared lengths keep a relative error of about sqrt(2 / WIDTH)."""

FLAT = 1e-6
"""Prior precision of unpenalised inputs, in place of 0."""


class Projection(nn.Module):
    """Adds up features with random signs in `width` bins (count sketch), after scaling them.

    Bins and signs follow from the seed, so that nothing but it need be stored.

    Args:
        scale: factor of each feature, 1 / sqrt(penalty).
        width: number of bins.
        seed: of bins and signs.
    """

    scale: Tensor
    bins: Tensor

    def __init__(self, scale: Float[Tensor, " feature"], *, width: int = WIDTH, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        bins = torch.randint(width, scale.shape, generator=generator)
        signs = torch.randint(2, scale.shape, generator=generator) * 2 - 1
        self.width = width
        self.register_buffer("scale", scale * signs, persistent=False)
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, features: Float[Tensor, "row feature"]) -> Float[Tensor, "row bin"]:
        """Projected features; linear in them."""
        bins: Int[Tensor, " feature"] = self.bins
        out = features.new_zeros(len(features), self.width)
        return out.index_add(1, bins, features * self.scale)


def posterior_root(
    projected: Float[Tensor, "row bin"],
    inputs: Float[Tensor, "row input"],
    weights: Float[Tensor, " row"],
    lost: Float[Tensor, "column column"] | None = None,
) -> Float[Tensor, "column column"]:
    """R with |R v|^2 = v' A^-1 v, for v a clip's projected features followed by its free inputs.

    Args:
        projected: of the clips that the readout was fitted to.
        inputs: their unpenalised inputs, the constant among them.
        weights: of the rows; for a loss other than the square, its second derivatives.
        lost: precision that is lost to other unknowns, such as effects of groups.
    """
    precision = precision_of(projected, inputs, weights)
    return root_of(precision if lost is None else precision - lost, inputs.shape[1])


def precision_of(
    projected: Float[Tensor, "row bin"],
    inputs: Float[Tensor, "row input"],
    weights: Float[Tensor, " row"],
) -> Float[Tensor, "column column"]:
    """Contribution of some rows to A, which is the sum over all rows."""
    design = torch.cat([projected, inputs], dim=1)
    return design.T @ (weights[:, None] * design)


def root_of(precision: Float[Tensor, "column column"], inputs: int) -> Float[Tensor, "_ _"]:
    """R for the sum of what all rows add to A; the last `inputs` columns are not penalised."""
    prior = precision.new_ones(len(precision))
    prior[len(precision) - inputs :] = FLAT
    factor = torch.linalg.cholesky(precision + prior.diag())
    identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    root: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return root


def leverage(
    root: Float[Tensor, "column column"],
    projected: Float[Tensor, "row bin"],
    inputs: Float[Tensor, "row input"],
) -> Float[Tensor, " row"]:
    """V' A^-1 v of clips; times the noise variance it is the variance of their fitted value."""
    return (torch.cat([projected, inputs], dim=1) @ root.T).square().sum(dim=1)
