"""Readouts from comparisons: stationary in the primal, penalties by folds, ties."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward.judge.posterior import Projection, leverage, posterior_root
from gtsvj_reward.losses import (
    bradley_terry_loss,
    bradley_terry_with_ties_loss,
    outcome_shares,
    rao_kupper_loss,
)
from gtsvj_reward.training.closed_form.comparisons import (
    Pairs,
    choose_comparison_penalties,
    derivatives,
    fit_comparisons,
    fold_of,
)
from gtsvj_reward.training.closed_form.ridge import Fit, Rows, expanded
from gtsvj_reward.training.closed_form.stages import energy_input, solve_comparisons

WIDTHS = (3, 20)
LOSSES = {
    "bradley_terry": bradley_terry_loss,
    "rao_kupper": lambda a, b, labels: rao_kupper_loss(a, b, labels, 0.4),
    "with_ties": lambda a, b, labels: bradley_terry_with_ties_loss(a, b, labels, 1.0),
}


def problem(count: int = 60, *, ties: bool) -> tuple[Rows, Pairs, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2 * count, sum(WIDTHS), generator=generator, dtype=torch.double)
    free = torch.randn(2 * count, 1, generator=generator, dtype=torch.double)
    truth = 2 * features[:, 0] + free[:, 0]
    first, second = torch.arange(0, 2 * count, 2), torch.arange(1, 2 * count, 2)
    gap = truth[first] - truth[second]
    gap = gap + torch.randn(count, generator=generator, dtype=torch.double)
    labels = torch.where(gap.abs() < (0.4 if ties else 0.0), 0, gap.sign()).long()
    rows = Rows(features, WIDTHS, torch.arange(2 * count), torch.ones(2 * count).double(), free)
    return rows, Pairs(first, second, labels, torch.arange(count)), truth


@pytest.mark.parametrize("name", LOSSES)
def test_the_fit_is_stationary_in_the_primal(name):
    rows, pairs, _ = problem(ties=name != "bradley_terry")
    penalties = (1.0, 4.0)
    fit = fit_comparisons(rows, pairs, LOSSES[name], penalties)
    weight = fit.weight[0].clone().requires_grad_()
    inputs = torch.cat([fit.bias, fit.free[0]]).requires_grad_()
    scores = rows.features @ weight + rows.inputs @ inputs
    objective = LOSSES[name](scores[pairs.first], scores[pairs.second], pairs.labels).sum()
    objective = objective + (expanded(penalties, WIDTHS) * weight.square()).sum() / 2
    objective.backward()
    torch.testing.assert_close(weight.grad, torch.zeros_like(weight), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.grad, torch.zeros_like(inputs), rtol=0, atol=1e-5)
    assert fit.weight.abs().max() > 0.1, "nothing was learnt: the test proves nothing"


@pytest.mark.parametrize("name", LOSSES)
def test_votes_are_as_many_comparisons(name):
    """Three votes for a pair and one against it: one row of probability 3/4 and weight 4."""
    rows, pairs, _ = problem(ties=False)
    votes = torch.tensor([3, 1]).repeat(len(pairs.first))  # for and against, pair by pair
    side = torch.stack([pairs.labels, -pairs.labels], dim=1).flatten()
    index = torch.arange(len(pairs.first)).repeat_interleave(2).repeat_interleave(votes)
    each = Pairs(
        pairs.first[index], pairs.second[index], side.repeat_interleave(votes), pairs.groups[index]
    )
    wins = pairs.labels > 0
    shares = outcome_shares(
        pairs.labels.tolist(), torch.where(wins, 0.75, 0.25).tolist(), [4.0] * len(wins)
    )
    soft = replace(pairs, labels=shares)
    torch.testing.assert_close(soft.sides(), pairs.labels.double() / 2)
    penalties = (1.0, 4.0)
    expected = fit_comparisons(rows, each, LOSSES[name], penalties)
    found = fit_comparisons(rows, soft, LOSSES[name], penalties)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-6, atol=1e-8)
    hard = fit_comparisons(rows, pairs, LOSSES[name], penalties)
    assert (found.weight - hard.weight).abs().max() > 0.01
    assert choose_comparison_penalties(rows, soft, LOSSES[name]).left_out_error < 0.99


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", LOSSES)
def test_chosen_penalties_find_what_was_compared(name):
    rows, pairs, truth = problem(150, ties=name != "bradley_terry")
    chosen = choose_comparison_penalties(rows, pairs, LOSSES[name])
    assert chosen.left_out_error < 0.8
    scores = fit_comparisons(rows, pairs, LOSSES[name], chosen.penalties)(rows.features, rows.free)
    assert torch.corrcoef(torch.stack([scores[:, 0], truth]))[0, 1] > 0.9


def test_a_loss_of_differences_leaves_the_constant_at_zero():
    rows, pairs, _ = problem(ties=False)
    assert fit_comparisons(
        rows, pairs, bradley_terry_loss, (1.0, 1.0)
    ).bias.tolist() == pytest.approx([0.0], abs=1e-9)


def test_folds_keep_groups_whole_and_even():
    groups = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 5, 6])
    folds = fold_of(groups)
    for group in range(7):
        assert len(folds[groups == group].unique()) == 1
    assert torch.bincount(folds).tolist() == [3, 2, 2, 2, 1]


def test_pairs_that_all_hang_together_are_refused():
    with pytest.raises(ValueError, match="all 4 comparisons are connected"):
        fold_of(torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("with_energy", [True, False])
def test_a_clip_is_as_uncertain_as_its_distance_from_the_middle(with_energy):
    # Comparisons leave the constant open: with a flat prior on it every clip was unsure by 1e3.
    rows, pairs, _ = problem(ties=False)
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(1, sum(WIDTHS), generator=generator, dtype=torch.double)
    nothing = weight.new_zeros(1, 0)
    energy = Fit(weight, nothing, weight.new_full((1,), 2.5)) if with_energy else None
    solved = solve_comparisons(
        rows.features, WIDTHS, pairs, LOSSES["bradley_terry"], energy=energy, seed=1,
        penalties=(1.0, 4.0),
    )  # fmt: skip
    assert solved.root.shape == (512 + 1 + with_energy,) * 2

    def inputs(features):
        ones = features.new_ones(len(features), 1)
        return torch.cat([ones, energy_input(features, energy)], dim=1)

    def unsure(root, features):
        return leverage(root, projection(features), inputs(features))

    projection = Projection(expanded((1.0, 4.0), WIDTHS).rsqrt(), seed=1).double()
    middle = rows.features.new_zeros(1, sum(WIDTHS))
    torch.testing.assert_close(unsure(solved.root, middle), middle.new_zeros(1), rtol=0, atol=1e-9)
    # Against the middle it is what a flat prior on the constant gives, where the constant cancels.
    scores = solved.fit(rows.features, nothing.expand(len(rows.features), 0))[:, 0]
    _, bend = derivatives(
        scores[pairs.first], scores[pairs.second], pairs.labels, LOSSES["bradley_terry"]
    )
    gaps = rows.features[pairs.first] - rows.features[pairs.second]
    free = inputs(rows.features)
    flat = posterior_root(projection(gaps), free[pairs.first] - free[pairs.second], -bend[1])
    relative = inputs(rows.features) - inputs(middle)
    expected = leverage(flat, projection(rows.features), relative)
    assert 0.01 < expected.mean() < 100
    torch.testing.assert_close(unsure(solved.root, rows.features), expected, rtol=1e-6, atol=1e-9)
