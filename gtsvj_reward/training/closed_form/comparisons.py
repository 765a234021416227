"""Readouts from comparisons: the convex problems of stage 3, solved to the end.

With K = sum_b X_b X_b' / penalty_b over the compared clips and K = C C', scores are s = C u + Z g
and the problem is

    minimise  sum over pairs of loss(s_first, s_second, label)  +  |u|^2 / 2

which has as many unknowns as clips, whatever the number of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.losses import PairLoss, expected_loss, expected_side
from gtsvj_reward.training.closed_form.ridge import (
    Fit,
    Penalties,
    Rows,
    choose_penalties,
    expanded,
    search,
)
from gtsvj_reward.training.closed_form.searched import check_targets

FOLDS = 5
ITERATIONS = 100
"""Of Newton's method, at most; it takes about ten."""

TOLERANCE = 1e-12
"""It has converged when a step promises less than this share of the objective."""

ADVICE = (
    "add other comparisons; if the better clip is always given first, swap the clips of half of "
    "them, and their labels"
)
"""For comparisons that all have the same label."""

NEARLY_FREE = 1e-9
"""Penalty of free inputs, in place of 0, which would leave an unused one undetermined."""


@dataclass(frozen=True)
class Pairs:
    """Comparisons of rows."""

    first: Int[Tensor, " pair"]
    """Row of the first clip."""
    second: Int[Tensor, " pair"]
    """Row of the second clip."""
    labels: Int[Tensor, " pair"] | Float[Tensor, "pair 3"]
    """+1: the first is better; -1: the second; 0: the same. Or shares of the outcomes first, tie
    and second, which add up to the weight of a pair (see `outcome_shares`)."""
    groups: Int[Tensor, " pair"]
    """Pairs of one number are left out together: they share clips, or a prompt."""

    def take(self, mask: Tensor) -> "Pairs":
        """Some of the pairs."""
        return Pairs(self.first[mask], self.second[mask], self.labels[mask], self.groups[mask])

    def sides(self) -> Float[Tensor, " pair"]:
        """Mean label of each pair, float64."""
        if self.labels.is_floating_point():
            return expected_side(self.labels)
        return self.labels.double()

    def weights(self) -> Float[Tensor, " pair"]:
        """How many comparisons each pair counts as, float64."""
        if self.labels.is_floating_point():
            return self.labels.sum(dim=1)
        return torch.ones_like(self.labels, dtype=torch.float64)


def fit_comparisons(rows: Rows, pairs: Pairs, loss: PairLoss, penalties: Sequence[float]) -> Fit:
    """The readout with the least penalised loss.

    Raises:
        RuntimeError: if the comparisons leave it undetermined.
    """
    per_feature = expanded(penalties, rows.widths).to(rows.features)
    kernel = (rows.features / per_feature) @ rows.features.T
    factor, values = symmetric_root(kernel)
    inside, free = minimise(factor, rows.inputs, pairs, loss)
    dual = factor @ (inside / values)  # K a = C u
    weight = (dual @ rows.features) / per_feature
    return Fit(weight[None], free[None, 1:], free[None, 0])


def choose_comparison_penalties(rows: Rows, pairs: Pairs, loss: PairLoss) -> Penalties:
    """Penalties with the least loss of pairs left out, in `FOLDS` folds of whole groups.

    How the blocks are weighted against one another is chosen by ridge regression of the labels on
    differences of features, whose left-out errors have a closed form; then the common strength is
    chosen with the loss itself. `left_out_error` is that loss as a share of what equal scores would
    give; 1 is no better. (Labels that are probabilities keep it above 0.)

    Raises:
        ValueError: for labels that are all alike, or fewer than three groups of pairs.
    """
    folds = fold_of(pairs.groups)
    differences = Rows(
        features=rows.features[pairs.first] - rows.features[pairs.second],
        widths=rows.widths,
        groups=pairs.groups,
        weights=pairs.weights().to(rows.weights),
        free=rows.free[pairs.first] - rows.free[pairs.second],
    )
    sides = pairs.sides().to(rows.features)[:, None]
    check_targets(pairs.groups, sides, ["labels of comparisons"], ADVICE)
    start = choose_penalties(differences, sides)
    per_feature = expanded(start.penalties, rows.widths).to(rows.features)
    root, values = symmetric_root((rows.features / per_feature) @ rows.features.T)
    inputs, nothing = rows.inputs, torch.zeros_like(rows.weights)
    chance = losses(loss, nothing[pairs.first], nothing[pairs.second], pairs.labels).sum().item()

    def error(decades: tuple[float, ...]) -> float:
        factor, total = root * 10.0 ** (decades[0] / 2), 0.0
        for fold in folds.unique().tolist():
            kept, apart = pairs.take(folds != fold), pairs.take(folds == fold)
            inside, free = minimise(factor, inputs, kept, loss)
            scores = factor @ inside + inputs @ free
            first, second = scores[apart.first], scores[apart.second]
            total += losses(loss, first, second, apart.labels).sum().item()
        return total / chance

    (strength,), least, tried = search(error, [-values.sum().div(len(root)).log10().item()])
    penalties = tuple(penalty / 10.0**strength for penalty in start.penalties)
    return Penalties(penalties, least, start.tried + tried)


def minimise(
    factor: Float[Tensor, "row inside"],
    inputs: Float[Tensor, "row input"],
    pairs: Pairs,
    loss: PairLoss,
) -> tuple[Float[Tensor, " inside"], Float[Tensor, " input"]]:
    """Solution of the penalised problem (u and g), by Newton's method with step halving.

    Raises:
        RuntimeError: if it has not converged.
    """
    design = torch.cat([factor, inputs], dim=1)
    first, second = design[pairs.first], design[pairs.second]
    prior = design.new_ones(design.shape[1])
    # An input that no loss depends on (the constant, for losses of differences) stays at 0.
    prior[factor.shape[1] :] = NEARLY_FREE

    def value(at: Tensor) -> float:
        total = losses(loss, first @ at, second @ at, pairs.labels).sum()
        return (total + (prior * at.square()).sum() / 2).item()

    solution, least, decrement = torch.zeros_like(prior), float("inf"), float("inf")
    for _ in range(ITERATIONS):
        slope, bend = derivatives(first @ solution, second @ solution, pairs.labels, loss)
        gradient = first.T @ slope[0] + second.T @ slope[1] + prior * solution
        mixed = first.T @ (bend[1][:, None] * second)
        hessian = first.T @ (bend[0][:, None] * first) + second.T @ (bend[2][:, None] * second)
        hessian = hessian + mixed + mixed.T + prior.diag()
        step = torch.linalg.solve(hessian, gradient)
        decrement = (gradient @ step).item()
        least, size = value(solution), 1.0
        if decrement < TOLERANCE * (1 + abs(least)):
            return solution[: factor.shape[1]], solution[factor.shape[1] :]
        while value(solution - size * step) > least - size * decrement / 4 and size > 1e-6:
            size /= 2
        solution = solution - size * step
    raise RuntimeError(
        f"the fit of {len(pairs.labels)} comparisons has not converged after {ITERATIONS} steps "
        f"(decrement {decrement:.2g}): an unpenalised input may separate them perfectly; give more "
        "comparisons, or contradicting ones"
    )


def losses(
    loss: PairLoss,
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"] | Float[Tensor, "pair 3"],
) -> Float[Tensor, " pair"]:
    """Loss of each pair, by labels or by shares of outcomes."""
    if labels.is_floating_point():
        return expected_loss(loss, first, second, labels)
    return loss(first, second, labels)


def derivatives(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    labels: Int[Tensor, " pair"] | Float[Tensor, "pair 3"],
    loss: PairLoss,
) -> tuple[Float[Tensor, "2 pair"], Float[Tensor, "3 pair"]]:
    """Of each pair's loss: both first derivatives; the second ones (11, 12, 22)."""
    scores = torch.stack([first, second]).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(
            losses(loss, scores[0], scores[1], labels).sum(), scores, create_graph=True
        )
        (from_first,) = torch.autograd.grad(slope[0].sum(), scores, retain_graph=True)
        (from_second,) = torch.autograd.grad(slope[1].sum(), scores)
    return slope.detach(), torch.stack([from_first[0], from_first[1], from_second[1]])


def symmetric_root(
    kernel: Float[Tensor, "row row"],
) -> tuple[Float[Tensor, "row inside"], Float[Tensor, " inside"]]:
    """C with C C' = K and orthogonal columns, and their squared lengths; no null directions."""
    values, vectors = torch.linalg.eigh(kernel)
    kept = values > 1e-10 * values[-1].clamp_min(1e-300)
    return vectors[:, kept] * values[kept].sqrt(), values[kept]


def fold_of(groups: Int[Tensor, " pair"]) -> Int[Tensor, " pair"]:
    """The fold of each pair; groups are dealt out by size, the largest first.

    Raises:
        ValueError: for fewer than two groups.
    """
    names, members, counts = groups.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(
            f"all {len(groups)} comparisons are connected through shared clips or prompts: none "
            "can be left out to choose a penalty; compare other clips as well"
        )
    folds = torch.zeros_like(counts)
    sizes = [0] * min(FOLDS, len(names))
    for group in counts.argsort(descending=True, stable=True).tolist():
        smallest = sizes.index(min(sizes))
        folds[group] = smallest
        sizes[smallest] += int(counts[group])
    return folds[members]
