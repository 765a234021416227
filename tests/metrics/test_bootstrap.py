"""Bootstrap intervals: coverage, whole groups, determinism."""

import math

import pytest
import torch

from gtsvj_reward.metrics import bootstrap_interval, spearman


def mean_of(values):
    return lambda indices: values[indices].mean().item()


@pytest.mark.usefixtures("unchecked")
def test_it_covers_a_mean_about_as_often_as_it_says():
    # 300 samples of 60 standard normals; the 80 % interval of the mean should hold 0 in 80 % of
    # them, within three standard errors of sqrt(0.8 * 0.2 / 300) = 0.023 and a small bias.
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for seed in range(300):
        values = torch.randn(60, generator=generator)
        low, high = bootstrap_interval(
            mean_of(values), 60, resamples=150, confidence=0.8, seed=seed
        )
        hits += low <= 0 <= high
    assert 0.70 <= hits / 300 <= 0.88


def test_the_ends_are_those_of_a_binomial():
    # Half of 100 pairs right: resampled shares are Binomial(100, 1/2) / 100, whose 2.5 % and 97.5 %
    # quantiles are 0.40 and 0.60.
    right = (torch.arange(100) % 2).double()
    low, high = bootstrap_interval(mean_of(right), 100, resamples=4000)
    assert low == pytest.approx(0.40, abs=0.0101)
    assert high == pytest.approx(0.60, abs=0.0101)


def test_whole_groups_are_drawn():
    groups = torch.tensor([7, -3, 7, 5, -3, 7])
    sizes = {7: 3, -3: 2, 5: 1}
    seen, lengths = set(), set()

    def statistic(indices):
        drawn = groups[indices].tolist()
        for group, size in sizes.items():
            assert drawn.count(group) % size == 0
        for first, second in ((0, 2), (0, 5), (1, 4)):
            assert (indices == first).sum() == (indices == second).sum()
        assert sum(drawn.count(group) // size for group, size in sizes.items()) == 3
        seen.update(indices.tolist())
        lengths.add(len(indices))
        return 0.0

    bootstrap_interval(statistic, 6, groups=groups, resamples=200)
    assert seen == set(range(6))
    assert lengths == set(range(3, 10)), "3 draws of sizes 3, 2, 1 sum to anything from 3 to 9"


def test_copies_of_a_pair_in_one_group_do_not_narrow_the_interval():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(40, generator=generator)
    alone = bootstrap_interval(mean_of(values), 40)
    copied, groups = values.repeat_interleave(25), torch.arange(40).repeat_interleave(25)
    assert bootstrap_interval(mean_of(copied), 1000, groups=groups) == pytest.approx(alone)
    low, high = bootstrap_interval(mean_of(copied), 1000)
    # Taken for independent, 25 copies make it 5 times narrower.
    assert (alone[1] - alone[0]) / (high - low) == pytest.approx(5, rel=0.15)


def test_confidence_widens_and_the_seed_decides():
    values = torch.randn(30, generator=torch.Generator().manual_seed(2))
    before = torch.random.get_rng_state()
    narrow, wide = (
        bootstrap_interval(mean_of(values), 30, confidence=confidence) for confidence in (0.5, 0.99)
    )
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    assert bootstrap_interval(mean_of(values), 30, confidence=0.5) == narrow
    assert bootstrap_interval(mean_of(values), 30, confidence=0.5, seed=1) != narrow
    assert torch.equal(torch.random.get_rng_state(), before), "it has a generator of its own"


def test_a_statistic_of_two_lists():
    first = torch.arange(50.0)
    second = first + torch.randn(50, generator=torch.Generator().manual_seed(3))
    low, high = bootstrap_interval(lambda i: spearman(first[i], second[i]), 50, resamples=100)
    assert 0.97 < low < spearman(first, second) < high <= 1


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_refused():
    def zero(indices):
        return 0.0

    with pytest.raises(ValueError, match="at least 2 pairs, got 1"):
        bootstrap_interval(zero, 1)
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
        bootstrap_interval(zero, 4, groups=torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"got shape \(3,\) for 4 pairs"):
        bootstrap_interval(zero, 4, groups=torch.arange(3))
    with pytest.raises(ValueError, match=r"got 0 and 0\.95"):
        bootstrap_interval(zero, 4, resamples=0)
    for confidence in (0, 1, math.nan):
        with pytest.raises(ValueError, match="0 < `confidence` < 1"):
            bootstrap_interval(zero, 4, confidence=confidence)
    with pytest.raises(ValueError, match=r"nan on resample 0 \(9 of 9 are not finite\)"):
        bootstrap_interval(lambda indices: math.nan, 4, resamples=9)
    with pytest.raises(RuntimeError, match="mine"):
        bootstrap_interval(raising, 4)


def raising(indices):
    raise RuntimeError("mine")
