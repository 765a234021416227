"""Regressions whose rows are spread over processes, in a projection of their features."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward.training.closed_form.features import FeatureCache
from gtsvj_reward.training.closed_form.record import GROUP_SHARE
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.closed_form.ridge import Fit, fit_ridge
from gtsvj_reward.training.closed_form.shares import Share, fit_share, fold_of
from gtsvj_reward.training.closed_form.sketch import BlockProjection, shared_out
from tests.judge.test_moment_judge import moment_judge
from tests.training.closed_form.test_refit import SHARP, compared, contrast, correlation, lot, rated
from tests.training.closed_form.test_ridge import PENALTIES, WIDTHS, problem


def test_blocks_share_the_width_and_small_ones_stay_whole():
    assert shared_out((30, 4, 9), 24) == (11, 4, 9)  # 8 each; 4 and 9 <= 10 leave 11
    assert shared_out((30, 4, 9), 99) == (30, 4, 9)
    with pytest.raises(ValueError, match="`projection_width` must be at least 3, one for each tap"):
        BlockProjection((30, 4, 9), 2, seed=0)


def test_a_readout_of_bins_is_one_of_features():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(5, 43, generator=generator, dtype=torch.double)
    projection = BlockProjection((30, 4, 9), 24, seed=1)
    projected = projection(features)
    assert projected.shape == (5, 24)
    torch.testing.assert_close(projected[:, 11:15], features[:, 30:34])  # a block that stays whole
    weight = torch.randn(2, 24, generator=generator, dtype=torch.double)
    fit = Fit(weight, weight[:, :0], torch.tensor([1.0, 2.0], dtype=torch.double))
    free = features[:, :0]
    torch.testing.assert_close(projection.unfold(fit)(features, free), fit(projected, free))


def test_inner_products_are_kept_on_average():
    features = torch.randn(2, 400, generator=torch.Generator().manual_seed(0)).double()
    wanted = features @ features.T
    found = [p @ p.T for p in (BlockProjection((400,), 100, seed=s)(features) for s in range(50))]
    assert (torch.stack(found).mean(dim=0) / wanted[0, 0] - wanted / wanted[0, 0]).abs().max() < 0.1


def test_sums_of_folds_give_the_ridge_that_leaves_folds_out():
    rows, targets = problem(0, 36)
    targets[:4, 1] = float("nan")
    share = Share(torch.arange(36), rows.features, WIDTHS, rows.free)
    fit, fitted, left_out = fit_share(share, targets, rows.groups, rows.weights, PENALTIES)
    for output in (0, 1):
        there = ~targets[:, output].isnan()
        some = rows.take(there)
        folds = replace(some, groups=fold_of(some.groups))
        wanted, expected = fit_ridge(folds, targets[there][:, [output]], PENALTIES)
        torch.testing.assert_close(fit.weight[output], wanted.weight[0])
        torch.testing.assert_close(fit.free[output], wanted.free[0])
        torch.testing.assert_close(left_out[there, output], expected[:, 0])
        torch.testing.assert_close(fitted[there, output], wanted(some.features, some.free)[:, 0])
        assert bool(left_out[~there, output].isnan().all())


@pytest.fixture(scope="module")
def fresh():
    return moment_judge()


@pytest.mark.parametrize("width", [10_000, 200])
def test_a_wide_projection_gives_the_judge_of_all_features(fresh, width):
    latents, qualities = lot(60, 2)
    known = {
        "contrast": contrast(latents[:40]), "ratings": rated(latents, qualities), "aspects": SHARP,
    }  # fmt: skip
    judge = refit(fresh, FeatureCache(fresh, spread=True), **known, projection_width=width)
    plain = refit(fresh, FeatureCache(fresh), **known)
    if width == 10_000:
        for name in ("mean", "deviation", "output.weight", "energy.weight", "root"):
            torch.testing.assert_close(
                judge.head.state_dict()[name], plain.head.state_dict()[name], rtol=1e-4, atol=1e-6
            )
        torch.testing.assert_close(judge.head.noise, plain.head.noise, rtol=0.3, atol=1e-3)
    new, qualities = lot(40, 8)
    assert correlation(judge(new).aspects[..., 0].mean(1), qualities["sharp"]) > 0.8
    assert judge.config.training["aspects: projected to"] == width
    shared = f"aspects: {GROUP_SHARE}"
    assert shared in plain.config.training
    assert shared not in judge.config.training, "it was not estimated"


def test_comparisons_are_not_projected(fresh):
    latents, qualities = lot(4, 1)
    pairs = compared(latents, qualities["sharp"])
    with pytest.raises(ValueError, match="`projection_width` is for energies and aspects"):
        refit(fresh, FeatureCache(fresh), comparisons=pairs, projection_width=9)
