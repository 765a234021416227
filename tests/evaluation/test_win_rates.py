"""The fitted scale, worked out by hand and against a fine grid."""

import math

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from gtsvj_reward.evaluation.win_rates import UndefinedScaleError, fit_scale, win_rates


def tensors(differences, labels):
    return torch.tensor(differences, dtype=torch.float64), torch.tensor(labels)


def test_equal_differences_give_the_log_odds():
    # All differences are 2 and 3 of 4 are won: sigmoid(2 / s) = 3/4, so 2 / s = log 3.
    # The loss is the entropy of 3/4: -(3 log(3/4) + log(1/4)) / 4.
    rates = win_rates(*tensors([2.0] * 4, [1, 1, -1, 1]))
    assert rates.scale == pytest.approx(2 / math.log(3))
    assert rates.log_loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)
    [only] = rates.bins
    assert (only.pairs, only.observed) == (4, 0.75)
    assert only.predicted == pytest.approx(0.75)
    assert only.interval[0] < 0.75 < only.interval[1]


PAIRS = st.lists(
    st.tuples(st.floats(-3, 3).map(lambda x: round(x, 2)), st.sampled_from([1, -1, 0])),
    min_size=3,
    max_size=30,
)


def loss(scale, pairs):
    return sum(math.log1p(math.exp(-d * h / scale)) for d, h in pairs if h)


@given(pairs=PAIRS, factor=st.sampled_from([1e-3, 1.0, 1e4]))
@settings(max_examples=80, deadline=None)
def test_no_other_scale_is_more_likely(pairs, factor):
    signed = [d * h for d, h in pairs if h]
    assume(signed and sum(signed) / len(signed) > 1e-3 and min(signed) < -0.01)
    differences, labels = zip(*pairs, strict=True)
    scale = fit_scale(*tensors(differences, labels))
    best = loss(scale, pairs)
    for other in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert loss(scale * other, pairs) >= best - 1e-9
    scaled = fit_scale(*tensors([factor * d for d in differences], labels))
    assert scaled == pytest.approx(factor * scale, rel=1e-9), "units of the score"


def test_true_probabilities_are_found_again():
    generator = torch.Generator().manual_seed(0)
    differences = 3 * torch.randn(40_000, generator=generator, dtype=torch.float64)
    won = torch.rand(40_000, generator=generator) < torch.sigmoid(differences / 1.7)
    rates = win_rates(differences, torch.where(won, 1, -1))
    assert rates.scale == pytest.approx(1.7, rel=0.05)
    assert len(rates.bins) == 10
    assert sum(item.pairs for item in rates.bins) == 40_000
    for item in rates.bins:
        assert item.observed == pytest.approx(item.predicted, abs=0.04)
    assert [b.predicted for b in rates.bins] == sorted(b.predicted for b in rates.bins)


def test_human_ties_do_not_count():
    some = ([2.0, 1.0, -1.0, 0.5], [1, 1, 1, -1])
    with_ties = ([*some[0], 9.0, -4.0], [*some[1], 0, 0])
    assert win_rates(*tensors(*some)) == win_rates(*tensors(*with_ties))


@pytest.mark.parametrize(
    ("differences", "labels", "reason"),
    [
        ([1.0, 2.0], [0, 0], "all pairs are human ties"),
        ([1.0, -2.0], [1, 1], "no better than chance"),
        ([0.0, 0.0], [1, -1], "no better than chance"),
        ([1.0, 0.0, -2.0], [1, 1, -1], "no pair is ordered wrongly"),
    ],
)
def test_where_there_is_no_scale(differences, labels, reason):
    with pytest.raises(UndefinedScaleError, match=reason):
        win_rates(*tensors(differences, labels))
