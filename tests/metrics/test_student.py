import pytest
from scipy.stats import t

from gtsvj_reward.metrics.student import student_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 10, 31, 47, 95, 1000])
@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-3, 1e-5, 1e-8])
def test_quantiles_are_those_of_scipy(tail, degrees):
    assert student_quantile(tail, degrees) == pytest.approx(t.isf(tail, degrees), rel=1e-7)


def test_what_has_no_quantile_is_refused():
    for tail, degrees in ((0.0, 3), (0.5, 3), (0.1, 0)):
        with pytest.raises(ValueError, match="expected 0 < tail"):
            student_quantile(tail, degrees)
