"""Losses of comparisons whose label is a probability: by hand, slowly, by differences."""

import math

import pytest
import torch

from gtsvj_reward.losses import (
    bradley_terry_loss,
    bradley_terry_with_ties_loss,
    expected_loss,
    expected_side,
    outcome_shares,
    rao_kupper_loss,
)

LOSSES = {
    "bradley_terry": bradley_terry_loss,
    "rao_kupper": lambda a, b, labels: rao_kupper_loss(a, b, labels, 0.4),
    "with_ties": lambda a, b, labels: bradley_terry_with_ties_loss(a, b, labels, 0.7),
}


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def chances(name, a, b):
    """P(first), P(tie), P(second), written out once more."""
    if name == "with_ties":
        first, second = math.exp(a / 0.7), math.exp(b / 0.7)
        whole = first + second + 1
        return first / whole, 1 / whole, second / whole
    threshold = 0.4 if name == "rao_kupper" else 0.0
    first = 1 / (1 + math.exp(threshold - (a - b)))
    second = 1 / (1 + math.exp(threshold + (a - b)))
    return first, 1 - first - second, second


SAID = [(1, None, 1.0), (0, None, 2.0), (1, 0.75, 1.0), (-1, 0.1, 0.4), (0, 0.5, 3.0), (1, 1.0, 1)]
FIRST, SECOND = doubles(0.3, 1.0, -2.0, 0.7, 0.1, 4.0), doubles(-1.0, 0.9, 1.5, 0.0, 0.4, -4.0)


def test_shares_by_hand():
    shares = outcome_shares([1, 0, -1, 1], [None, None, None, 0.75], [1.0, 2.0, 1.0, 0.4])
    expected = [[1, 0, 0], [0, 2, 0], [0, 0, 1], [0.3, 0, 0.1]]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(expected_side(shares), doubles(1, 0, -1, 0.5))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_slow_one(name):
    said = [row for row in SAID if name != "bradley_terry" or row[0] or row[1] is not None]
    keep = torch.tensor([row in said for row in SAID])
    first, second = FIRST[keep], SECOND[keep]
    found = expected_loss(LOSSES[name], first, second, outcome_shares(*zip(*said, strict=True)))
    slow = []
    for (label, probability, weight), a, b in zip(said, first, second, strict=True):
        wins, ties, loses = (-math.log(max(p, 1e-300)) for p in chances(name, a.item(), b.item()))
        each = {1: wins, 0: ties, -1: loses}[label]
        if probability is not None:
            each = probability * wins + (1 - probability) * loses
        slow.append(weight * each)
    torch.testing.assert_close(found, doubles(*slow))


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_differences(name):
    said = [row for row in SAID if row[0] or row[1] is not None]
    shares = outcome_shares(*zip(*said, strict=True))
    first = FIRST[: len(said)].clone().requires_grad_()
    second = SECOND[: len(said)].clone().requires_grad_()

    def total(a, b):
        return expected_loss(LOSSES[name], a, b, shares).sum()

    # Newton's method of the closed form needs the second derivatives too.
    assert torch.autograd.gradcheck(total, (first, second))
    assert torch.autograd.gradgradcheck(total, (first, second))


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_bradley_terry_is_least_where_it_predicts_the_probability(probability):
    gaps = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    shares = outcome_shares([1], [probability]).expand(len(gaps), 3)
    loss = expected_loss(bradley_terry_loss, gaps, torch.zeros_like(gaps), shares)
    best = gaps[loss.argmin()].item()
    assert best == pytest.approx(math.log(probability / (1 - probability)), abs=1e-3)
    entropy = -probability * math.log(probability) - (1 - probability) * math.log(1 - probability)
    assert loss.min().item() == pytest.approx(entropy, abs=1e-6)


def test_a_loss_without_ties_takes_halves_but_no_tie():
    half = outcome_shares([0], [0.5])
    loss = expected_loss(bradley_terry_loss, doubles(0.0), doubles(0.0), half)
    torch.testing.assert_close(loss, doubles(math.log(2)))
    with pytest.raises(ValueError, match="1 of 1 pairs are ties"):
        expected_loss(bradley_terry_loss, doubles(0.0), doubles(0.0), outcome_shares([0], [None]))
