"""Pairwise accuracy counted by hand, and the interval against SciPy's."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import binomtest

from gtsvj_reward.metrics import pairwise_accuracy, proportion_interval


def test_counted_by_hand():
    # (2, 1) right, (1, 2) wrong, (3, 3) tie, (0, -1) right, (-inf, -inf) tie:
    # (2 + 2/2) / 5 = 0.6.
    first = torch.tensor([2.0, 1, 3, 0, -math.inf])
    second = torch.tensor([1.0, 2, 3, -1, -math.inf])
    result = pairwise_accuracy(first, second)
    assert (result.accuracy, result.pairs, result.ties) == (0.6, 5, 2)
    assert result.interval() == proportion_interval(0.6, 5)


def test_a_judge_that_says_one_thing_is_at_chance():
    result = pairwise_accuracy(torch.zeros(7), torch.zeros(7))
    assert (result.accuracy, result.ties) == (0.5, 7)


SCORES = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20
)  # whole numbers, so that ties happen


@given(pairs=SCORES)
def test_swapping_the_sides_swaps_the_shares(pairs):
    first, second = torch.tensor(pairs, dtype=torch.float32).T
    forth, back = pairwise_accuracy(first, second), pairwise_accuracy(second, first)
    assert forth.accuracy + back.accuracy == pytest.approx(1)
    assert forth.ties == back.ties
    monotone = pairwise_accuracy(first.exp(), second.exp())
    assert monotone == forth, "only the order counts"


@given(
    count=st.integers(1, 500),
    wins=st.integers(0, 500),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
)
def test_the_interval_is_scipys(count, wins, confidence):
    wins = min(wins, count)
    expected = binomtest(wins, count).proportion_ci(confidence, method="wilson")
    found = proportion_interval(wins / count, count, confidence)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found[0] <= wins / count <= found[1] <= 1


def test_one_pair_says_little():
    low, high = pairwise_accuracy(torch.ones(1), torch.zeros(1)).interval()
    # By hand at z = 1.96: the lower end for 1 of 1 is 1 / (1 + z^2) = 0.2065.
    assert (low, high) == (pytest.approx(0.2065, abs=1e-4), 1.0)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="pair 1 has a score that is NaN"):
        pairwise_accuracy(torch.tensor([1.0, 2.0]), torch.tensor([0.0, math.nan]))


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        pairwise_accuracy(torch.zeros(0), torch.zeros(0))


@pytest.mark.usefixtures("unchecked")
def test_unequal_lists_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(1,\)"):
        pairwise_accuracy(torch.zeros(3), torch.zeros(1))


@pytest.mark.parametrize("arguments", [(1.1, 5), (-0.1, 5), (0.5, 0), (0.5, 5, 1.0), (math.nan, 5)])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected 0 <= `share` <= 1"):
        proportion_interval(*arguments)
