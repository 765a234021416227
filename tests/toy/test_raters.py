import math

import pytest
import torch

from gtsvj_reward.toy.degradations import FAULTS
from gtsvj_reward.toy.raters import (
    ASPECTS,
    WEIGHTS,
    compare,
    qualities,
    rate,
    utility,
)

CLEAN: dict[str, float] = {}


def many(function, count=4000):
    generator = torch.Generator().manual_seed(0)
    return [function(generator) for _ in range(count)]


def test_every_fault_belongs_to_one_aspect():
    assert sorted(fault for faults in ASPECTS.values() for fault in faults) == sorted(FAULTS)
    assert set(WEIGHTS) == set(ASPECTS)
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_qualities_by_hand():
    found = qualities({"flicker": 0.5, "jitter": 0.2, "stutter": 1.0})
    assert found == {
        "steadiness": pytest.approx(0.4), "motion": 0.0, "clarity": 1.0, "persistence": 1.0
    }  # fmt: skip
    assert utility({"flicker": 0.5, "jitter": 0.2, "stutter": 1.0}) == pytest.approx(
        12 * (0.3 * 0.4 + 0.25 * 0 + 0.2 + 0.25)
    )
    assert utility(CLEAN) == pytest.approx(12)


@pytest.mark.parametrize("fault", FAULTS)
def test_more_of_a_fault_is_worse(fault):
    values = [utility({fault: severity}) for severity in (0.0, 0.3, 0.6, 1.0)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def test_ratings_are_likert_and_follow_the_quality():
    ratings = many(lambda g: rate({"blur": 0.5}, g))
    clarity = torch.tensor([float(row["clarity"]) for row in ratings])
    assert {*clarity.tolist()} <= {1.0, 2.0, 3.0, 4.0, 5.0}
    # 1 + 4 * 0.5 = 3 with noise of 0.5; rounding adds a variance of about 1/12.
    assert clarity.mean().item() == pytest.approx(3, abs=0.05)
    assert clarity.var().item() == pytest.approx(0.25 + 1 / 12, abs=0.04)
    assert all(3 <= row["motion"] <= 5 for row in ratings)


def test_comparisons_follow_rao_and_kupper():
    """Frequencies of wins, losses and ties against the formula at a gap of 1.5."""
    first, second = CLEAN, {"stutter": 0.5}
    compared = many(lambda g: compare(first, second, g))
    gap = 12 * 0.25 * 0.5
    assert compared[0].gap == pytest.approx(gap)

    def logistic(x):
        return 1 / (1 + math.exp(-x))

    wins, losses = logistic(gap - 0.4), logistic(-gap - 0.4)
    counts = [sum(v.label == label for v in compared) / len(compared) for label in (1, -1, 0)]
    assert counts == pytest.approx([wins, losses, 1 - wins - losses], abs=0.025)


def test_swapping_the_clips_swaps_the_odds():
    forth = many(lambda g: compare({"blur": 0.8}, CLEAN, g).label)
    back = many(lambda g: compare(CLEAN, {"blur": 0.8}, g).label)
    share = [sum(label == 1 for label in back), sum(label == -1 for label in forth)]
    assert abs(share[0] - share[1]) / 4000 < 0.03
