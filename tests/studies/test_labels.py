"""The study of labels: differences and the decision by hand, and a page from few results."""

import pytest

from studies.labels_page import DECIDED_AT, Estimate, difference, outcome, page


def record(choice, seed, accuracies, generator="plain"):
    curve = [{"labels": n, "accuracy": a, "gain": a / 2} for n, a in accuracies.items()]
    return {"generator": generator, "choice": choice, "seed": seed, "curve": curve}


RECORDS = [
    record("random", 0, {60: 0.60, 100: 0.70}),
    record("active", 0, {60: 0.69, 100: 0.75}),
    record("random", 1, {60: 0.62, 100: 0.72}),
    record("active", 1, {60: 0.73, 100: 0.75}),
    record("active", 2, {60: 0.9}),  # without a counterpart
]


def test_runs_of_one_seed_are_compared():
    # -1 and +1 points: mean 0, deviation sqrt(2), t of one degree of freedom 12.706.
    found = difference(RECORDS, "accuracy", 60, 100)
    assert found.runs == 2
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.half == pytest.approx(12.706, abs=1e-3)
    assert difference(RECORDS, "accuracy", 60, 100, "unsteady") is None
    assert difference(RECORDS, "accuracy", 240, 400) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([Estimate(0.5, 1.0, 9)] * 3, "held"),
        ([Estimate(0.5, 2.0, 9)] * 3, "inconclusive"),
        ([Estimate(0.5, 1.0, 9), Estimate(-3.0, 1.0, 9), None], "did not hold"),
        ([Estimate(0.5, 1.0, 9), Estimate(0.5, 1.0, 9), None], "inconclusive"),
    ],
)
def test_decision(found, expected):
    assert len(found) == len(DECIDED_AT)
    assert outcome(found) == expected


def test_a_page_from_what_there_is():
    text = page(RECORDS)
    both = "+0.0 ± 12.7 (2)"
    assert f"| 60 against 100 | {both} | {both} | not run | not run | {both} |" in text
    assert "| 400 | not run | not run |" in text
    assert "**inconclusive**" in text
    assert "plain, active, seed 2 (60)" in text
    assert "unsteady, random, seed 4 (0)" in text
