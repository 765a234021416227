"""Correlations against SciPy's, with ties on purpose."""

import math

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from scipy import stats

from gtsvj_reward.metrics import pearson, spearman

TENTHS = st.lists(
    st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=30
)  # few values, so that ties happen


@settings(max_examples=60)
@given(pairs=TENTHS)
def test_they_are_scipys(pairs):
    first, second = torch.tensor(pairs, dtype=torch.float64).T / 10
    assume(len(first.unique()) > 1 and len(second.unique()) > 1)
    expected = stats.pearsonr(first.numpy(), second.numpy()).statistic
    assert pearson(first, second) == pytest.approx(expected, abs=1e-9)
    expected = stats.spearmanr(first.numpy(), second.numpy()).statistic
    assert spearman(first, second) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    # Ranks of (1, 2, 2, 10) are 1, 2.5, 2.5, 4, centred (-1.5, 0, 0, 1.5); of (4, 3, 2, 1) they are
    # themselves, centred (1.5, 0.5, -0.5, -1.5). Product -4.5, squares 4.5 and 5.
    first, second = torch.tensor([1.0, 2, 2, 10]), torch.tensor([4.0, 3, 2, 1])
    assert spearman(first, second) == pytest.approx(-4.5 / math.sqrt(22.5))
    # Centred (-2.75, -1.75, -1.75, 6.25) and the same; product -4.125 - 0.875 + 0.875 - 9.375
    # = -13.5, squares 52.75 and 5.
    assert pearson(first, second) == pytest.approx(-13.5 / math.sqrt(52.75 * 5))


def test_a_monotone_map_keeps_ranks_and_a_line_keeps_both():
    first = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert spearman(first, first.exp()) == pytest.approx(1, abs=1e-12)
    assert pearson(first, first.exp()) < 0.95
    assert pearson(first, 3 - 2 * first) == pytest.approx(-1, abs=1e-6)
    assert spearman(first, -(first**3)) == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_sizes_do_not_matter(scale):
    first = torch.tensor([1.0, -1.5, 0.25, 0.7], dtype=torch.float64)
    second = torch.tensor([0.1, 0.2, -0.4, 0.9], dtype=torch.float64)
    assert pearson(first * scale, second) == pytest.approx(pearson(first, second), abs=1e-9)
    assert abs(pearson(first, second)) > 0.1


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_bad_lists_are_refused(correlation):
    ramp = torch.arange(3.0)
    with pytest.raises(ValueError, match="`first` is 2 for all 3 clips"):
        correlation(torch.full((3,), 2.0), ramp)
    with pytest.raises(ValueError, match=r"`second` is 0\.5 for all 3 clips"):
        correlation(ramp, torch.full((3,), 0.5))
    with pytest.raises(ValueError, match="`second` has nan at index 1"):
        correlation(ramp, torch.tensor([0, math.nan, 1]))
    with pytest.raises(ValueError, match=r"`first` has inf at index 2 \(1 of 3"):
        correlation(torch.tensor([0, 1, math.inf]), ramp)
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        correlation(ramp, torch.arange(2.0))
    with pytest.raises(ValueError, match="at least two each"):
        correlation(torch.ones(1), torch.ones(1))
