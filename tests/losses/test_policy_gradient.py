import math
from inspect import unwrap

import pytest
import torch
from hypothesis import given, strategies as st

from gtsvj_reward.losses import clipped_policy_loss

numbers = st.floats(-3, 3, allow_nan=False, width=32)
rows = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5)


def slow(now, old, advantage, clip_range):
    """Eq. 7 of Schulman et al. 2017, one sample at a time."""
    ratio = math.exp(now - old)
    held = min(max(ratio, 1 - clip_range), 1 + clip_range)
    return -min(ratio * advantage, held * advantage)


@given(rows, st.sampled_from([1e-4, 0.1, 0.5]))
def test_loss_equals_the_formula(table, clip_range):
    columns = torch.tensor(table, dtype=torch.float64).T
    found = clipped_policy_loss(*columns, clip_range).loss
    expected = [slow(*row, clip_range) for row in columns.T.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_gradient_is_the_policy_gradient_until_the_clip_and_nothing_beyond():
    # ratios 1, e^0.2 and e^-0.2; the clip at 0.1 holds back gains that were taken already
    now = torch.tensor([0.0, 0.2, -0.2, 0.2, -0.2], requires_grad=True)
    advantage = torch.tensor([2.0, 1.0, -1.0, -1.0, 1.0])
    found = clipped_policy_loss(now, torch.zeros(5), advantage, 0.1)
    found.loss.sum().backward()
    expected = [-2.0, 0.0, 0.0, math.exp(0.2), -math.exp(-0.2)]
    torch.testing.assert_close(now.grad, torch.tensor(expected))
    assert found.clipped.tolist() == [0, 1, 1, 0, 0]
    assert not found.ratio.requires_grad


def test_no_gradient_flows_into_advantages_and_old_log_probabilities():
    now, old, advantages = (torch.full((2,), 0.1, requires_grad=True) for _ in range(3))
    found = clipped_policy_loss(now, old, advantages, 0.5)
    found.loss.sum().backward()
    assert now.grad.abs().min() > 0
    assert old.grad is None
    assert advantages.grad is None


@pytest.mark.parametrize("clip_range", [0.0, -1.0, float("nan")])
def test_clip_range_must_be_positive(clip_range):
    with pytest.raises(ValueError, match="clip_range"):
        clipped_policy_loss(torch.zeros(2), torch.zeros(2), torch.ones(2), clip_range)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        # below the shape annotations, which only tests check
        unwrap(clipped_policy_loss)(torch.zeros(2), torch.zeros(3), torch.ones(2), 0.1)
