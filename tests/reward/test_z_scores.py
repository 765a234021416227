"""Group z-scores against a loop over groups."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward.reward import NonFiniteError
from gtsvj_reward.reward.z_scores import group_z_scores


def test_by_hand():
    # cat: 1, 3: mean 2, std 1. dog: 0, 0, 6: mean 2, std sqrt((4 + 4 + 16) / 3) = sqrt(8).
    rewards = torch.tensor([0.0, 1, 0, 3, 6], dtype=torch.float64)
    scores = group_z_scores(rewards, ["dog", "cat", "dog", "cat", "dog"], epsilon=1e-12)
    low = -2 / math.sqrt(8)
    expected = torch.tensor([low, -1, low, 1, -2 * low], dtype=torch.float64)
    torch.testing.assert_close(scores, expected)


@settings(max_examples=60)
@given(clips=st.lists(st.tuples(st.sampled_from("abc"), st.floats(-5, 5)), min_size=1, max_size=12))
def test_it_is_a_loop_over_groups(clips):
    names, values = zip(*clips, strict=True)
    found = group_z_scores(
        torch.tensor(values, dtype=torch.float64), names, epsilon=0.01, allow_single=True
    )
    for (name, value), score in zip(clips, found.tolist(), strict=True):
        group = [v for n, v in clips if n == name]
        expected = (value - statistics.fmean(group)) / (statistics.pstdev(group) + 0.01)
        assert score == pytest.approx(expected, abs=1e-9)


def test_groups_may_be_numbers_or_any_hashables():
    rewards = torch.tensor([1.0, 2, 3, 5])
    expected = group_z_scores(rewards, ["a", "b", "a", "b"])
    assert torch.equal(group_z_scores(rewards, torch.tensor([7, -1, 7, -1])), expected)
    assert torch.equal(group_z_scores(rewards, [(0, "x"), None, (0, "x"), None]), expected)
    assert expected.tolist() == pytest.approx([-1, -1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e20, -1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_group_gets_exactly_0(value, dtype):
    rewards = torch.tensor([value] * 7 + [1.0, 2.0], dtype=dtype)
    scores = group_z_scores(rewards, [0] * 7 + [1] * 2)
    assert (scores[:7] == 0).all()
    assert scores[7:].tolist() == pytest.approx([-1, 1], abs=1e-4)


def test_a_spread_far_below_epsilon_counts_as_none():
    rewards = torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64)
    assert group_z_scores(rewards, [0, 0]).abs().max() < 1e-3
    assert group_z_scores(rewards, [0, 0], epsilon=1e-12).abs().min() > 0.9


def test_a_group_of_one():
    rewards = torch.tensor([1.0, 2, 3, 4])
    groups = ["a", "a", "a cat, running", "b"]
    with pytest.raises(ValueError, match=r"'a cat, running' has a single clip \(2 of 3 groups\)"):
        group_z_scores(rewards, groups)
    scores = group_z_scores(rewards, groups, allow_single=True)
    assert scores.tolist() == pytest.approx([-1, 1, 0, 0], abs=1e-4)
    assert (scores[2:] == 0).all()


def test_they_are_constants_of_at_least_float32():
    rewards = torch.tensor([1.0, 2.0], requires_grad=True)
    assert not group_z_scores(rewards, [0, 0]).requires_grad
    assert group_z_scores(rewards.bfloat16(), [0, 0]).dtype == torch.float32
    assert group_z_scores(rewards.double(), [0, 0]).dtype == torch.float64


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_refused():
    rewards = torch.tensor([1.0, 2.0])
    with pytest.raises(NonFiniteError, match=r"reward of clip 1 is nan \(1 of 2 clips\)"):
        group_z_scores(torch.tensor([1.0, math.nan]), [0, 0])
    with pytest.raises(ValueError, match=r"shape \(2,\) and 3 groups"):
        group_z_scores(rewards, [0, 0, 0])
    with pytest.raises(ValueError, match="at least one clip"):
        group_z_scores(torch.zeros(0), [])
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="`epsilon` must be positive"):
            group_z_scores(rewards, [0, 0], epsilon=epsilon)
    with pytest.raises(ValueError, match=r"shape \(2, 1\) and 2 groups"):
        group_z_scores(rewards[:, None], [0, 0])
