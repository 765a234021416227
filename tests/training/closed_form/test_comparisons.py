"""Readouts from comparisons: stationary in the primal, penalties by folds, ties."""

import pytest
import torch

from gtsvj_reward.losses import (
    bradley_terry_loss,
    bradley_terry_with_ties_loss,
    rao_kupper_loss,
)
from gtsvj_reward.training.closed_form.comparisons import (
    Pairs,
    choose_comparison_penalties,
    fit_comparisons,
    fold_of,
)
from gtsvj_reward.training.closed_form.ridge import Rows, expanded

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
    with pytest.raises(ValueError, match="all 4 comparisons hang together"):
        fold_of(torch.zeros(4, dtype=torch.long))
