"""The rule of active choice against numbers worked out otherwise, and fair random draws."""

import math
from itertools import combinations

import pytest
import torch

from gtsvj_reward.labelling.beliefs import Beliefs
from gtsvj_reward.labelling.choice import PROBIT, draw_pairs, information

NORMAL = torch.distributions.Normal(0.0, 1.0)


def entropy(p):
    return torch.special.entr(p) + torch.special.entr(1 - p)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 0.5), (0.0, 9.0), (1.5, 4.0), (-3.0, 1.0)])
def test_information_is_the_mutual_information_of_outcome_and_score(mean, variance):
    # Directly: entropy of the mean outcome less the mean entropy, on a grid of the normal.
    grid = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    weights = torch.exp(-grid.square() / 2)
    weights /= weights.sum()
    outcome = torch.special.ndtr(PROBIT * (mean + math.sqrt(variance) * grid))
    nats = entropy((weights * outcome).sum()) - (weights * entropy(outcome)).sum()
    expected = nats / math.log(2)
    found = information(torch.tensor([mean]), torch.tensor([variance])).double()
    assert expected > 0.005
    # Houlsby et al. replace one entropy by a curve that is off by up to 3% of a bit.
    assert found.item() == pytest.approx(expected.item(), abs=0.01)


def test_undecided_pairs_tell_more_if_the_judge_is_unsure_and_nothing_if_it_is_sure():
    mean = torch.tensor([0.0, 0.0, 0.0, 4.0])
    variance = torch.tensor([0.0, 1.0, 4.0, 4.0])
    nothing, some, most, decided = information(mean, variance).tolist()
    assert nothing == pytest.approx(0, abs=1e-6)
    assert 0 < some < most
    assert decided < most / 2


def test_random_pairs_are_equally_likely_and_never_taken_or_across_groups():
    groups = [[0, 1, 2], [3], [4, 5]]
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys([(0, 1), (1, 2), (4, 5)], 0)
    for _ in range(900):
        (pair,) = draw_pairs(groups, {(0, 2)}, 1, generator)
        counts[pair] += 1
    assert min(counts.values()) > 250  # 300 each, deviation 14
    every = draw_pairs(groups, {(0, 2)}, 50, generator)
    assert sorted(every) == [(0, 1), (1, 2), (4, 5)]
    assert draw_pairs([[0], [1]], set(), 1, generator) == []


def test_pairs_of_large_groups_are_drawn_alike():
    groups = [list(range(300)), list(range(300, 310))]
    generator = torch.Generator().manual_seed(1)
    taken = set(combinations(range(20), 2))
    pairs = draw_pairs(groups, taken, 3000, generator)
    assert len(set(pairs)) == 3000
    assert not taken & set(pairs)
    small = sum(a >= 300 for a, _ in pairs)
    assert 0 < small < 25  # 45 of 44,895 - 190 pairs: 3 are expected
    ends = torch.tensor([a + b for a, b in pairs if a < 300]).double() / 2
    assert abs(ends.mean() - 149.5) < 5  # deviation about 61 / sqrt(3000) = 1.1
    assert all(a < b for a, b in pairs)


def beliefs(scores, vectors):
    return Beliefs(torch.tensor(scores).double(), torch.tensor(vectors).double(), {}, 0)


def test_an_answer_that_was_asked_for_makes_the_next_pair_another_one():
    believed = beliefs([0.0, 0.0, 0.0, 0.0], [[2.0, 0], [0, 0], [0, 1.9], [0, 0.1]])
    pairs = [(0, 1), (2, 3)]
    assert believed.most_telling(pairs) == (0, 1)
    believed.expect(0, 1)
    # Curvature 1/4 and variance 4: 4 / (1 + 4 / 4) is left of it, and the other pair is untouched.
    torch.testing.assert_close(believed.gaps(pairs)[1], torch.tensor([2.0, 1.8**2]).double())
    assert believed.most_telling(pairs) == (2, 3)


def test_looking_at_one_clip_tells_of_those_like_it():
    believed = Beliefs(torch.zeros(3).double(), torch.eye(3).double()[[0, 0, 1]] * 3, {}, 0, 0.5)
    believed.expect_rating(0)
    # 9 / (1 + 9 / 2) for both clips along the direction; the third knows nothing of it.
    left = believed.vectors.square().sum(dim=1)
    torch.testing.assert_close(left, torch.tensor([18 / 11, 18 / 11, 9.0]).double())
    assert believed.least_known([0, 1, 2]) == 2


def test_probability_of_a_pair():
    # Mean ln 3 without variance: odds of 3. With variance 8 / pi the mean counts 1 / sqrt(2).
    known = beliefs([math.log(3), 0.0], [[1.0], [1.0]])
    assert known.probability(0, 1) == pytest.approx(0.75)
    unsure = beliefs([math.log(3), 0.0], [[math.sqrt(8 / math.pi)], [0.0]])
    assert unsure.probability(0, 1) == pytest.approx(1 / (1 + 3 ** -math.sqrt(0.5)))
    assert unsure.probability(1, 0) == pytest.approx(1 - unsure.probability(0, 1))
