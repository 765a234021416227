"""Ridge with a penalty per block: against the primal normal equations and brute-force refits."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward.training.closed_form import primal as primal_form
from gtsvj_reward.training.closed_form.group_noise import chosen_share
from gtsvj_reward.training.closed_form.ridge import (
    Rows,
    choose_penalties,
    expanded,
    fit_ridge,
    search,
    weighted_kernel,
)
from gtsvj_reward.training.closed_form.searched import check_targets, thinned

WIDTHS = (4, 9)
PENALTIES = (2.0, 5.0)


def problem(seed: int, count: int = 30) -> tuple[Rows, torch.Tensor]:
    """More rows than features, groups of three, unequal weights, one free input, two outputs."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    rows = Rows(
        features=draw(count, sum(WIDTHS)),
        widths=WIDTHS,
        groups=torch.arange(count) // 3,
        weights=torch.rand(count, generator=generator, dtype=torch.double) + 0.2,
        free=draw(count, 1),
    )
    targets = torch.stack([rows.features[:, 0] + 3 * rows.free[:, 0], rows.features[:, 7]], dim=1)
    return rows, targets + 0.5 * draw(count, 2)


def primal(rows: Rows, target: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Constant, free input and features of weighted ridge regression on some rows, directly.

    Row weights keep the scale that they have over all rows with a target.
    """
    weights = rows.weights / rows.weights[~target.isnan()].mean()
    design = torch.cat([torch.ones(len(target), 1), rows.free, rows.features], dim=1)[kept]
    penalty = torch.cat([torch.zeros(2), expanded(PENALTIES, WIDTHS)]).diag()
    weighted = weights[kept, None] * design
    return torch.linalg.solve(design.T @ weighted + penalty, weighted.T @ target[kept])


@pytest.mark.parametrize("count", [30, 12], ids=["more rows", "more features"])
@pytest.mark.parametrize("seed", range(3))
def test_fit_and_left_out_predictions_equal_the_normal_equations(seed, count, monkeypatch):
    monkeypatch.setattr(primal_form, "ROWS_AT_ONCE", 7)  # rows and groups come in parts
    rows, targets = problem(seed, count)
    targets[:4, 1] = float("nan")  # the second output has labels of fewer clips
    fit, left_out = fit_ridge(rows, targets, PENALTIES)
    for output in (0, 1):
        target = targets[:, output]
        labelled = (~target.isnan()).nonzero()[:, 0]
        direct = primal(rows, target, labelled)
        got = torch.cat([fit.bias[output, None], fit.free[output], fit.weight[output]])
        torch.testing.assert_close(got, direct)
        for group in rows.groups[labelled].unique():
            kept = labelled[rows.groups[labelled] != group]
            apart = labelled[rows.groups[labelled] == group]
            solution = primal(rows, target, kept)
            expected = solution[0] + rows.free[apart, 0] * solution[1]
            expected = expected + rows.features[apart] @ solution[2:]
            torch.testing.assert_close(left_out[apart, output], expected)
    assert left_out[:4, 1].isnan().all()
    assert not torch.allclose(left_out[:, 0], fit(rows.features, rows.free)[:, 0], atol=0.05)


def test_fit_equals_a_long_gradient_descent():
    rows, targets = problem(5)
    fit, _ = fit_ridge(rows, targets[:, :1], PENALTIES)
    weight = torch.zeros(sum(WIDTHS), dtype=torch.double, requires_grad=True)
    inputs = torch.zeros(2, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.SGD([weight, inputs], lr=4e-3, momentum=0.9)
    weights = rows.weights / rows.weights.mean()
    for _ in range(3000):
        optimizer.zero_grad()
        fitted = rows.features @ weight + inputs[0] + rows.free[:, 0] * inputs[1]
        loss = (weights * (targets[:, 0] - fitted).square()).sum()
        loss = loss + (expanded(PENALTIES, WIDTHS) * weight.square()).sum()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(fit.weight[0], weight.detach(), rtol=1e-4, atol=1e-6)


def test_chosen_penalties_weight_up_the_block_that_tells():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 60, generator=generator, dtype=torch.double)
    target = features[:, 2] + 0.3 * torch.randn(90, generator=generator, dtype=torch.double)
    rows = Rows(
        features=features,
        widths=(5, 55),
        groups=torch.arange(90),
        weights=torch.ones(90, dtype=torch.double),
        free=torch.zeros(90, 0, dtype=torch.double),
    )
    chosen = choose_penalties(rows, target[:, None])
    assert chosen.penalties[1] > 10 * chosen.penalties[0]
    assert chosen.left_out_error < 0.25  # 0.3^2 / 1.09 is the noise; a constant has 1


def test_noise_is_not_fitted():
    rows, _ = problem(7)
    noise = torch.randn(30, 1, generator=torch.Generator().manual_seed(9), dtype=torch.double)
    chosen = choose_penalties(rows, noise)
    fit, _ = fit_ridge(rows, noise, chosen.penalties)
    assert chosen.left_out_error > 0.8
    assert (rows.features @ fit.weight[0]).std() < 0.5 * noise.std()


def test_search_finds_the_least_of_a_bowl():
    place, least, _ = search(lambda x: 1 + (x[0] - 2) ** 2 + (x[1] + 1) ** 2, [0.0, 0.0])
    assert place == (2.0, -1.0)
    assert least == pytest.approx(1.0)


def test_thinning_keeps_whole_groups():
    groups = torch.arange(100).repeat_interleave(5)
    kept = thinned(groups, 50)
    names, counts = groups[kept].unique(return_counts=True)
    assert len(names) == 10
    assert (counts == 5).all()
    assert len(thinned(groups, 500)) == 500


def test_few_labels_among_many_clips_do_not_spoil_the_choice_for_all():
    """Thinning leaves none, or one, of seven labels; what it left had no error to compare."""
    rows, targets = problem(3, 1500)
    rare = torch.full_like(targets[:, :1], float("nan"))
    rare[:7] = targets[:7, :1]
    both = torch.cat([targets, rare], dim=1)
    chosen, known = choose_penalties(rows, both), choose_penalties(rows, targets)
    assert chosen.penalties == pytest.approx(known.penalties)
    assert chosen.left_out_error == pytest.approx(known.left_out_error)
    with pytest.raises(ValueError, match="no output has different labels in at least 3 groups"):
        choose_penalties(rows, rare)
    ones = replace(rows, weights=torch.ones_like(rows.weights))
    generator = torch.Generator().manual_seed(0)
    shared = targets + 2 * torch.randn(500, 1, generator=generator).double()[rows.groups]
    effects = [chosen_share(ones, t, PENALTIES) for t in (shared, torch.cat([shared, rare], 1))]
    assert effects[0] == effects[1] > 0


def test_outputs_that_teach_nothing_are_refused():
    rows, targets = problem(1)
    targets[:, 1] = 2.0
    with pytest.raises(ValueError, match="second: all 30 are 2"):
        check_targets(rows.groups, targets, ["first", "second"])
    targets[:, 0] = float("nan")
    targets[:3, 0] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.double)
    with pytest.raises(ValueError, match="first: labels in 1 groups"):
        check_targets(rows.groups, targets[:, :1], ["first"])


def test_rows_are_checked():
    rows, _ = problem(1)
    with pytest.raises(ValueError, match="the widths must add up"):
        Rows(rows.features, (4, 4), rows.groups, rows.weights, rows.free)
    with pytest.raises(ValueError, match="must be positive"):
        Rows(rows.features, WIDTHS, rows.groups, 0 * rows.weights, rows.free)


def test_a_kernel_in_parts_is_the_whole_product():
    features = torch.randn(2500, 5, dtype=torch.double)
    penalties = torch.rand(5, dtype=torch.double) + 0.5
    whole = features @ (1 / penalties).diag() @ features.T
    torch.testing.assert_close(weighted_kernel(features, penalties), whole)
