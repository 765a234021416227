"""Whether rebuilt toy models are as good as stated: the intervals, and what is compared."""

import json
from pathlib import Path

import pytest

from gtsvj_reward.metrics.pairwise import proportion_interval
from studies.page import read_results
from tools.toy import compare

ROOT = Path(__file__).resolve().parents[2]


def row(share, count):
    return {"shares": {"shape": share}, "intervals": {"shape": proportion_interval(share, count)}}


def test_shares_differ_as_in_newcombes_own_example():
    """56 of 70 against 48 of 80: 0.0524 to 0.3339, Newcombe 1998 (Stat. Med. 17), method 10."""
    found = compare.shares("shape", row(48 / 80, 80), row(56 / 70, 70))
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )
    assert found.outcome == "better"
    again = compare.shares("shape", row(56 / 70, 70), row(48 / 80, 80))
    assert (again.low, again.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    assert again.outcome == "worse"
    assert compare.shares("shape", row(0.5, 80), row(0.55, 80)).outcome == "same"


def test_accuracies_differ_by_welchs_interval():
    """By hand: variances 1 and 4, three seeds each, by the formulas."""
    found = compare.accuracies("cross", [1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    half = 3.2192 * (1 / 3 + 4 / 3) ** 0.5
    assert (found.low, found.high) == (
        pytest.approx(4 - half, abs=2e-3),
        pytest.approx(4 + half, abs=2e-3),
    )
    assert found.outcome == "same"
    assert compare.accuracies("cross", [1.0, 1.1], [3.0, 3.1]).outcome == "better"
    # One new seed: t of 2 degrees is 4.3027, and its own variance is that of the stated ones.
    found = compare.accuracies("cross", [1.0, 2.0, 3.0], [8.0])
    assert (found.low, found.high) == (
        pytest.approx(6 - 4.3027 * (4 / 3) ** 0.5, abs=1e-3),
        pytest.approx(6 + 4.3027 * (4 / 3) ** 0.5, abs=1e-3),
    )


def test_what_is_stated_equals_itself():
    generator = json.loads((ROOT / "tools/toy/figures/generator.json").read_text())
    judge = read_results(ROOT / "studies/results")
    found = [*compare.of_generator(generator, generator), *compare.of_judge(judge, judge)]
    assert len(found) == 6 * 5 + len(compare.STUDY_MEASURES)
    assert {item.outcome for _, item in found} == {"same"}
    assert len(compare.table(found).splitlines()) == len(found) + 2


def test_the_page_says_what_the_last_rebuild_gave():
    figures = json.loads((ROOT / "tools/toy/figures/rebuilt.json").read_text())["figures"]
    page = (ROOT / "docs/toy.md").read_text().split("## Retraining")[1]
    outcomes = [figure["outcome"] for figure in figures]
    assert f"Of {len(figures)} figures none is significantly worse" in page
    assert (outcomes.count("worse"), outcomes.count("better")) == (0, 1)
    for figure in figures:
        if figure["name"] in ("cross-content", "same content", "energy alone"):
            numbers = f"{100 * figure['stated']:.1f} | {100 * figure['rebuilt']:.1f}"
            interval = f"{100 * figure['low']:+.1f} to {100 * figure['high']:+.1f}"
            assert f"{figure['name']} | {numbers} | {interval} |" in page
