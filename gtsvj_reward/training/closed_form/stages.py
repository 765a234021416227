"""The three stages on features: energy, aspects, preference; each solved exactly.

Stage 1. Eq. 4 is least squares: a positive has the target -1/(2 beta), a negative +1/(2 beta).
Stage 2. Ridge regression of each aspect, with the energy as an unpenalised input.
Stage 3. A convex comparison model, on the aspects or, where nobody rated, on the moments
themselves with the energy as an unpenalised input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.judge.posterior import Projection, posterior_root
from gtsvj_reward.losses import PairLoss, contrastive_bound
from gtsvj_reward.training.closed_form.comparisons import (
    Pairs,
    choose_comparison_penalties,
    derivatives,
    fit_comparisons,
)
from gtsvj_reward.training.closed_form.group_noise import (
    chosen_share,
    fit_with_groups,
    lost_to_groups,
)
from gtsvj_reward.training.closed_form.primal import ROWS_AT_ONCE
from gtsvj_reward.training.closed_form.ridge import (
    Fit,
    Penalties,
    Rows,
    choose_penalties,
    fit_ridge,
)

LEAST_DEVIATION = 1e-4
"""Floor of a feature's deviation: one that hardly varies would make any other clip look foreign."""


FEATURES_AT_ONCE = 1024
"""Features of which a copy in float64 is held for their statistics."""


@dataclass(frozen=True)
class Standard:
    """Mean and deviation of the features over the positives, or over labelled clips."""

    mean: Float[Tensor, " feature"]
    deviation: Float[Tensor, " feature"]

    @classmethod
    def of(cls, features: Float[Tensor, "clip feature"]) -> "Standard":
        """Of some clips, float64.

        Raises:
            ValueError: for fewer than three clips.
        """
        if len(features) < 3:
            raise ValueError(
                f"{len(features)} clips to standardise features by: at least 3 are needed"
            )
        parts = features.split(FEATURES_AT_ONCE, dim=1)
        mean = torch.cat([part.double().mean(dim=0) for part in parts])
        deviation = torch.cat([part.double().std(dim=0) for part in parts])
        return cls(mean, deviation.clamp_min(LEAST_DEVIATION))

    def __call__(self, features: Float[Tensor, "clip feature"]) -> Float[Tensor, "clip feature"]:
        """Features in deviations, float64."""
        return torch.sub(features, self.mean).div_(self.deviation)  # one copy, in float64


@dataclass(frozen=True)
class Solved:
    """A stage that was solved."""

    fit: Fit
    """Readout of standardised features; free inputs are folded in."""
    penalties: Penalties
    left_out: Float[Tensor, "row output"] | None = None
    """Per row, the prediction without its group; None for comparisons."""
    root: Float[Tensor, "column column"] | None = None
    """Of the posterior; see `gtsvj_reward.judge.posterior`."""
    noise: Float[Tensor, "output output"] | None = None
    """Covariance of what is left over, between the outputs."""
    group_share: float | None = None
    """Variance of what the ratings of a group have in common, as a multiple of the noise; None: it
    was not estimated."""


def solve_energy(
    features: Float[Tensor, "row feature"],
    widths: Sequence[int],
    *,
    positive: Tensor,
    weights: Float[Tensor, " row"],
    groups: Int[Tensor, " row"],
    beta: float,
    penalties: Sequence[float] | None = None,
) -> Solved:
    """Stage 1: the energy that minimises Eq. 4 plus a ridge penalty.

    Args:
        features: standardised, of positives and negatives.
        widths: of the taps.
        positive: True for a positive row.
        weights: how often a row was drawn; positives and negatives then have one half each, as
            the two expectations of Eq. 4.
        groups: a source clip and what was made of it.
        beta: of Eq. 4.
        penalties: None chooses them.

    Raises:
        ValueError: without positives or without negatives.
    """
    targets, halves = energy_targets(positive, weights, beta)
    rows = Rows(features, tuple(widths), groups, halves, features.new_zeros(len(features), 0))
    chosen = choose_penalties(rows, targets) if penalties is None else given(penalties)
    fit, left_out = fit_ridge(rows, targets, chosen.penalties)
    return Solved(fit, chosen, left_out)


def energy_targets(
    positive: Tensor, weights: Float[Tensor, " row"], beta: float
) -> tuple[Float[Tensor, "row 1"], Float[Tensor, " row"]]:
    """The energies that are least in Eq. 4, and weights by which both sides count one half.

    Raises:
        ValueError: without positives or without negatives.
    """
    for name, side in (("positive", positive), ("negative", ~positive)):
        if not bool(side.any()):
            raise ValueError(f"no {name} clips: the energy needs real clips and negatives")
    target = contrastive_bound(beta)
    targets = torch.where(positive, target, -target).double()[:, None]
    halves = torch.where(
        positive, weights / weights[positive].sum(), weights / weights[~positive].sum()
    )
    return targets, halves


def solve_aspects(
    features: Float[Tensor, "row feature"],
    widths: Sequence[int],
    targets: Float[Tensor, "row aspect"],
    groups: Int[Tensor, " row"],
    *,
    energy: Fit | None,
    seed: int,
    penalties: Sequence[float] | None = None,
    group_effects: bool = True,
) -> Solved:
    """Stage 2: ridge regression of range-normalised ratings, NaN where there is none.

    Args:
        features: standardised.
        widths: of the taps.
        targets: ratings.
        groups: ratings that have an error in common, and are left out together.
        energy: an unpenalised input; None: none.
        seed: of the projection that the posterior is kept in.
        penalties: None chooses them.
        group_effects: False for targets that have no error in common, such as those of a teacher.
    """
    free = energy_input(features, energy)
    weights = features.new_ones(len(features))
    rows = Rows(features, tuple(widths), groups, weights, free)
    chosen = choose_penalties(rows, targets) if penalties is None else given(penalties)
    share = chosen_share(rows, targets, chosen.penalties) if group_effects else 0.0
    fit, fitted, left_out = fit_with_groups(rows, targets, chosen.penalties, share)
    noise = noise_between(weights, targets - fitted, targets - left_out)
    root = projected_root(rows, chosen.penalties, weights, seed, group_share=share)
    return Solved(folded(fit, energy), chosen, left_out, root, noise, share)


def solve_comparisons(
    features: Float[Tensor, "row feature"],
    widths: Sequence[int],
    pairs: Pairs,
    loss: PairLoss,
    *,
    energy: Fit | None,
    seed: int,
    penalties: Sequence[float] | None = None,
) -> Solved:
    """Stage 3 without ratings: a score straight from the moments.

    The posterior is that of Laplace: the curvature of each comparison takes the place of a row.
    Comparisons say nothing of the score's constant, so that a clip's uncertainty is that of how far
    it is from the middle of the clips that the features were standardised on.
    """
    free = energy_input(features, energy)
    rows = Rows(
        features, tuple(widths), torch.arange(len(features)), free.new_ones(len(features)), free
    )
    if penalties is None:
        chosen = choose_comparison_penalties(rows, pairs, loss)
    else:
        chosen = given(penalties)
    fit = fit_comparisons(rows, pairs, loss, chosen.penalties)
    scores = fit(rows.features, rows.free)[:, 0]
    _, bend = derivatives(scores[pairs.first], scores[pairs.second], pairs.labels, loss)
    differences = replace(
        rows,
        features=rows.features[pairs.first] - rows.features[pairs.second],
        groups=pairs.groups,
        weights=(-bend[1]).clamp_min(1e-9),
        free=free[pairs.first] - free[pairs.second],
    )
    root = projected_root(differences, chosen.penalties, differences.weights, seed, constant=False)
    middle = energy_input(features.new_zeros(1, features.shape[1]), energy)[0]
    root = about_the_middle(root, middle)
    return Solved(folded(fit, energy), chosen, None, root, features.new_ones(1, 1))


def solve_preference(
    aspects: Float[Tensor, "row aspect"], pairs: Pairs, loss: PairLoss
) -> tuple[Float[Tensor, " aspect"], float, Penalties]:
    """Stage 3 on aspects: their weights in the score, its constant, and the penalty.

    The mean of the aspects is unpenalised, so that with few comparisons the score stays a multiple
    of it, which is what an aspect judge has.
    """
    mean = aspects.mean(dim=1, keepdim=True)
    count, width = aspects.shape
    rows = Rows(aspects, (width,), torch.arange(count), aspects.new_ones(count), mean)
    chosen = choose_comparison_penalties(rows, pairs, loss)
    fit = fit_comparisons(rows, pairs, loss, chosen.penalties)
    return fit.weight[0] + fit.free[0] / width, fit.bias.item(), chosen


def noise_between(
    weights: Float[Tensor, " row"],
    inside: Float[Tensor, "row output"],
    residuals: Float[Tensor, "row output"],
) -> Float[Tensor, "output output"]:
    """Covariance of the noise, from residuals of a fit and of those that left groups out.

    A group left out is predicted with covariance noise * P_GG^-1, so that the mean of
    r_G' P_GG r_G over the rows estimates the noise without counting what the fit is unsure of.
    Between two outputs it is the correlation of left-out residuals of rows that have both.
    """
    # P_GG r_G is the dual weight of the group: noise * (what the fit itself leaves over).
    scale = weights[:, None] / weights.mean()
    variances = (scale * inside * residuals).nanmean(dim=0).clamp_min(1e-12)
    filled = residuals.nan_to_num()
    both = (~residuals.isnan()).to(filled)
    products = filled.T @ filled / (both.T @ both).clamp_min(1)
    spread = products.diagonal().sqrt()
    correlation = products / (spread[:, None] * spread[None])
    noise = correlation * (variances.sqrt()[:, None] * variances.sqrt()[None])
    values, vectors = torch.linalg.eigh(noise)  # pairwise counts can make it indefinite
    covariance: Tensor = vectors @ values.clamp_min(0).diag() @ vectors.T
    return covariance


def projected_root(
    rows: Rows,
    penalties: Sequence[float],
    weights: Float[Tensor, " row"],
    seed: int,
    *,
    constant: bool = True,
    group_share: float = 0.0,
) -> Float[Tensor, "column column"]:
    """Root of the posterior of a fit; see `posterior_root`.

    Args:
        rows: that the readout was fitted to.
        penalties: of the taps.
        weights: of the rows.
        seed: of the projection.
        constant: whether a constant was fitted, as the first free input.
        group_share: variance of group effects, as a multiple of the noise; for weights of 1.
    """
    each = torch.tensor(penalties).repeat_interleave(torch.tensor(rows.widths))
    projection = Projection(each.rsqrt(), seed=seed).double()
    ones = weights.new_ones(len(weights), int(constant))
    inputs = torch.cat([ones, rows.free], dim=1)
    projected = torch.cat([projection(part) for part in rows.features.split(ROWS_AT_ONCE)])
    lost = lost_to_groups(torch.cat([projected, inputs], dim=1), rows.groups, group_share)
    return posterior_root(projected, inputs, weights, lost)


def about_the_middle(
    root: Float[Tensor, "column column"], middle: Float[Tensor, " input"]
) -> Float[Tensor, "_ _"]:
    """The root with a column for the constant 1, which stands for the middle of the features.

    Times a clip's (projected, 1, inputs) it is the former root times (projected, inputs - middle).

    Args:
        root: of projected features and inputs, without a constant.
        middle: inputs of the clip whose standardised features are all zero.
    """
    bins = len(root) - len(middle)
    constant = -root[:, bins:] @ middle[:, None]
    wide = torch.cat([root[:, :bins], constant, root[:, bins:]], dim=1)
    return torch.cat([wide, wide.new_zeros(1, wide.shape[1])])  # square, as checkpoints have it


def energy_input(features: Tensor, energy: Fit | None) -> Float[Tensor, "row input"]:
    """The energy of clips as a free input; none without a discriminator."""
    if energy is None:
        return features.new_zeros(len(features), 0)
    return energy(features, features.new_zeros(len(features), 0))


def folded(fit: Fit, energy: Fit | None) -> Fit:
    """A readout with the energy among its inputs, as one of the features alone."""
    if energy is None:
        return fit
    return Fit(
        weight=fit.weight + fit.free @ energy.weight,
        free=fit.free[:, :0],
        bias=fit.bias + fit.free @ energy.bias,
    )


def given(penalties: Sequence[float]) -> Penalties:
    """Penalties that somebody chose."""
    return Penalties(tuple(penalties), float("nan"), 0)
