"""The published script's accuracies: where they equal ours, and the three ways they do not."""

import random

import pytest
import torch

from gtsvj_reward.metrics import (
    accuracy_with_ties,
    accuracy_without_ties,
    videoreward_accuracy_with_ties,
    videoreward_accuracy_without_ties,
)
from tests.metrics.test_ties import made_up


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def walked(differences, labels):
    """(accuracy, pairs turned) of the walk, counting all pairs afresh after every step."""
    order = sorted(range(len(labels)), key=lambda index: abs(differences[index]))
    best = (-1, 0)
    for turned in range(1, len(order) + 1):
        right = sum(labels[index] == 0 for index in order[:turned])
        right += sum(labels[index] * differences[index] > 0 for index in order[turned:])
        best = max(best, (right, -turned))
    return best[0] / len(labels), -best[1]


@pytest.mark.usefixtures("unchecked")
def test_it_is_the_walk_over_single_pairs():
    rng, above, below = random.Random(0), 0, 0
    for _ in range(3000):
        differences, labels = made_up(rng)
        pairs = doubles(*differences), torch.tensor(labels)
        found = videoreward_accuracy_with_ties(*pairs)
        assert (found.accuracy, found.predicted_ties) == walked(differences, labels)
        turned = sorted(abs(d) for d in differences)[found.predicted_ties - 1]
        assert (found.threshold, found.pairs) == (turned, len(labels))
        ours = accuracy_with_ties(*pairs).accuracy
        assert found.accuracy >= ours - 1 / len(labels) - 1e-12
        above, below = above + (found.accuracy > ours), below + (found.accuracy < ours)
    assert min(above, below) > 50, "both ways to deviate should have come up"


def test_equal_differences_are_parted():
    # One pair of two is turned, the human tie: 2 of 2. No threshold parts 0.5 from 0.5: 1 of 2.
    differences, labels = doubles(0.5, 0.5), torch.tensor([0, 1])
    assert videoreward_accuracy_with_ties(differences, labels).accuracy == 1
    assert accuracy_with_ties(differences, labels).accuracy == 0.5
    # In the other order the walk meets the preference first: 0, then 1 of 2.
    assert videoreward_accuracy_with_ties(differences, labels.flip(0)).accuracy == 0.5


def test_no_ties_is_never_tried():
    differences, labels = doubles(0.5, 0.6), torch.tensor([1, 1])
    found = videoreward_accuracy_with_ties(differences, labels)
    assert (found.accuracy, found.predicted_ties, found.threshold) == (0.5, 1, 0.5)
    assert accuracy_with_ties(differences, labels).accuracy == 1


def test_what_the_script_gets_wrong_without_ties_is_refused():
    # A second row without a usable label counts as wrong in the script (1 of 2); only human ties
    # divide by zero.
    with pytest.raises(ValueError, match="pair 1 has the label -100"):
        videoreward_accuracy_without_ties(doubles(1, 1), torch.tensor([1, -100]))
    with pytest.raises(ValueError, match="all 2 pairs are human ties"):
        videoreward_accuracy_without_ties(doubles(1, 1), torch.tensor([0, 0]))


def test_without_ties_equal_scores_are_wrong():
    # 0 (A) wrong, 2 (A) right, 0 (tie) left out: 1 of 2.
    differences, labels = doubles(0, 2, 0), torch.tensor([1, 1, 0])
    found = videoreward_accuracy_without_ties(differences, labels)
    assert (found.accuracy, found.pairs, found.predicted_ties) == (0.5, 2, 1)
    assert found == accuracy_without_ties(differences, labels)


def test_they_agree_on_distinct_differences_whose_least_is_a_human_tie():
    differences, labels = doubles(0.1, -0.4, 0.7, 1.2), torch.tensor([0, -1, -1, 1])
    ours = accuracy_with_ties(differences, labels)
    assert videoreward_accuracy_with_ties(differences, labels) == ours
    assert ours.accuracy == 0.75
