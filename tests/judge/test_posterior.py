"""The projected posterior against the exact one of ridge regression."""

import pytest
import torch

from gtsvj_reward.judge.posterior import Projection, leverage, posterior_root


def exact_leverage(fitted, new, penalties, weights):
    """v' (X' W X + diag(p))^-1 v, with an unpenalised constant, in the primal."""
    one = torch.ones(len(fitted), 1, dtype=torch.double)
    design = torch.cat([fitted, one], dim=1)
    prior = torch.cat([penalties, torch.zeros(1, dtype=torch.double)])
    inverse = torch.linalg.inv(design.T @ (weights[:, None] * design) + prior.diag())
    rows = torch.cat([new, torch.ones(len(new), 1, dtype=torch.double)], dim=1)
    return ((rows @ inverse) * rows).sum(1)


def constant(rows):
    return torch.ones(len(rows), 1, dtype=torch.double)


def test_without_collisions_it_is_exact():
    generator = torch.Generator().manual_seed(0)
    fitted = torch.randn(15, 6, generator=generator, dtype=torch.double)
    new = torch.randn(5, 6, generator=generator, dtype=torch.double)
    penalties = torch.tensor([1.0, 1, 1, 4, 4, 4], dtype=torch.double)
    weights = torch.rand(15, generator=generator, dtype=torch.double) + 0.5
    projection = Projection(penalties.rsqrt(), width=4096, seed=1)
    assert len(projection.bins.unique()) == 6, "features share a bin: choose another seed"
    root = posterior_root(projection(fitted), constant(fitted), weights)
    got = leverage(root, projection(new), constant(new))
    torch.testing.assert_close(
        got, exact_leverage(fitted, new, penalties, weights), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("seed", range(3))
def test_many_features_keep_their_leverage_nearly(seed):
    generator = torch.Generator().manual_seed(seed)
    fitted = torch.randn(60, 1500, generator=generator, dtype=torch.double)
    new = torch.randn(20, 1500, generator=generator, dtype=torch.double)
    new[10:] *= 3  # foreign clips
    penalties = torch.full((1500,), 1500.0, dtype=torch.double)
    projection = Projection(penalties.rsqrt(), seed=seed)
    weights = torch.ones(60, dtype=torch.double)
    got = leverage(
        posterior_root(projection(fitted), constant(fitted), weights),
        projection(new),
        constant(new),
    )
    expected = exact_leverage(fitted, new, penalties, weights)
    torch.testing.assert_close(got, expected, rtol=0.25, atol=0)
    assert got[10:].min() > got[:10].max()


def test_the_projection_is_linear_and_follows_from_its_seed():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 40, generator=generator)
    first = Projection(torch.ones(40), width=8, seed=3)
    again = Projection(torch.ones(40), width=8, seed=3)
    other = Projection(torch.ones(40), width=8, seed=4)
    assert torch.equal(first(rows), again(rows))
    assert not torch.equal(first(rows), other(rows))
    torch.testing.assert_close(first(rows.sum(0, keepdim=True)), first(rows).sum(0, keepdim=True))
