"""Errors that ratings of a group have in common, against generalised least squares."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward.judge.posterior import Projection, leverage, posterior_root
from gtsvj_reward.training.closed_form.group_noise import (
    chosen_share,
    fit_with_groups,
    lost_to_groups,
    restricted_likelihood,
)
from gtsvj_reward.training.closed_form.ridge import Rows
from gtsvj_reward.training.closed_form.stages import solve_aspects


def rows_of(groups, features, seed=0):
    """Rows of one block of features, with a free input."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(groups), features + 1, generator=generator, dtype=torch.double)
    ones = torch.ones(len(groups), dtype=torch.double)
    return Rows(values[:, :-1], (features,), groups, ones, values[:, -1:])


def rated(groups, effects, seed, features=6):
    """Ratings of rows with effects of groups, and noise of deviation 1."""
    rows = rows_of(groups, features, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    noise = torch.randn(len(groups), generator=generator, dtype=torch.double)
    each = effects * torch.randn(int(groups.max()) + 1, generator=generator, dtype=torch.double)
    return rows, (rows.features.sum(dim=1) + each[groups] + noise)[:, None]


@pytest.mark.parametrize("features", [3, 40])
def test_the_fit_is_that_of_generalised_least_squares(features):
    """Of fewer and of more features than rows; the posterior likewise."""
    groups, share, penalty = torch.arange(24) // 4, 0.7, 2.0
    rows, targets = rated(groups, 1.0, 0, features)
    fit, fitted, left_out = fit_with_groups(rows, targets, (penalty,), share)
    # y = X w + Z b + error, error of covariance I + share * (1 within a group).
    same = (groups[:, None] == groups[None]).double()
    precision = torch.linalg.inv(torch.eye(24, dtype=torch.double) + share * same)
    design = torch.cat([rows.features, rows.inputs], dim=1)
    prior = torch.tensor([penalty] * features + [0.0, 0.0], dtype=torch.double).diag()
    inverse = torch.linalg.inv(design.T @ precision @ design + prior)
    expected = inverse @ design.T @ precision @ targets
    got = torch.cat([fit.weight[0], fit.bias, fit.free[0]])
    torch.testing.assert_close(got, expected[:, 0], rtol=1e-6, atol=1e-8)
    # The effects are what is expected of them given the rest.
    effects = share * same @ precision @ (targets - design @ expected)
    torch.testing.assert_close(fitted, design @ expected + effects, rtol=1e-6, atol=1e-8)
    # A group that is left out has none.
    kept = groups != 2
    apart, _, _ = fit_with_groups(rows.take(kept), targets[kept], (penalty,), share)
    new = rows.take(~kept)
    torch.testing.assert_close(left_out[~kept], apart(new.features, new.free), rtol=1e-6, atol=1e-8)
    # Projected features, as if they were the features over the root of the penalty.
    projected = rows.features / penalty**0.5
    lost = lost_to_groups(torch.cat([projected, rows.inputs], dim=1), groups, share)
    root = posterior_root(projected, rows.inputs, rows.weights, lost)
    found = leverage(root, projected, rows.inputs)
    torch.testing.assert_close(found, ((design @ inverse) * design).sum(1), rtol=1e-4, atol=1e-6)


def test_the_likelihood_is_that_of_contrasts_that_inputs_cannot_reach():
    """Up to a constant: of A'y, where A spans what is orthogonal to the inputs."""
    groups = torch.arange(12) // 3
    rows, targets = rated(groups, 1.0, 5)
    inputs = rows.inputs  # the intercept too
    same = (groups[:, None] == groups[None]).double()
    kernel = torch.eye(12, dtype=torch.double) + 0.3 * rows.features @ rows.features.T
    contrasts = torch.linalg.qr(inputs, mode="complete").Q[:, 2:]

    def direct(covariance):
        seen, y = contrasts.T @ covariance @ contrasts, contrasts.T @ targets
        scale = (y.T @ torch.linalg.inv(seen) @ y).item() / 10
        density = torch.distributions.MultivariateNormal(torch.zeros(10).double(), scale * seen)
        return density.log_prob(y[:, 0]).item()

    found = [restricted_likelihood(kernel + share * same, inputs, targets) for share in (0.1, 2.0)]
    expected = [direct(kernel + share * same) for share in (0.1, 2.0)]
    assert found[1] - found[0] == pytest.approx(expected[1] - expected[0], abs=1e-9)
    assert abs(expected[1] - expected[0]) > 0.1


def test_no_effects_are_found_where_there_are_none_or_none_can_be_seen():
    groups = torch.arange(120) // 6
    alone, targets = rated(torch.arange(120), 1.0, 0)
    assert chosen_share(alone, targets, (1.0,)) == 0
    found = [chosen_share(*rated(groups, 0.0, seed), (1.0,)) for seed in range(4)]
    assert max(found) <= 0.1
    found = [chosen_share(*rated(groups, 1.0, seed), (1.0,)) for seed in range(4)]
    assert all(0.3 <= share <= 3 for share in found)


def test_intervals_cover_ratings_of_other_groups():
    """Clips of a group are alike: what is theirs is taken for what the features say."""
    known, apart = torch.arange(100), torch.arange(100, 300)
    groups = torch.cat([known // 10, apart])
    inside = {True: [], False: []}
    for seed in range(8):
        rows, noisy = rated(groups, 1.0, seed, 25)
        generator = torch.Generator().manual_seed(seed + 200)
        centres = 2 * torch.randn(300, 25, generator=generator, dtype=torch.double)[groups]
        rows, ratings = (
            replace(rows, features=rows.features + centres),
            noisy[:, 0] + centres.sum(1),
        )
        old, new = rows.take(known), rows.take(apart)
        for effects, found in inside.items():
            solved = solve_aspects(
                old.features, old.widths, ratings[known, None], old.groups, energy=None, seed=seed,
                group_effects=effects,
            )  # fmt: skip
            scale = torch.full((25,), solved.penalties.penalties[0]).double().rsqrt()
            projected = Projection(scale, seed=seed)(new.features)
            sure = leverage(solved.root, projected, new.inputs[:, :1])
            spread = (solved.noise[0, 0] * (1 + solved.group_share + sure)).sqrt()
            error = ratings[apart] - solved.fit(new.features, new.free[:, :0])[:, 0]
            found.append((error.abs() < 1.2816 * spread).double().mean())
    covered = {effects: torch.stack(found).mean().item() for effects, found in inside.items()}
    assert 0.74 < covered[True] < 0.86
    assert covered[False] < covered[True] - 0.04
