"""Measured results beside the paper's table."""

from dataclasses import replace

import pytest

from gtsvj_reward.evaluation import (
    PUBLISHED,
    comparison_markdown,
    comparison_text,
    evaluate_comparisons,
    read_results,
)
from gtsvj_reward.evaluation.compare import accuracy_table, basis_table
from tests.evaluation.made_up import FAST, made_up, made_up_scores

PRINTED = """
VideoScore 49.03 71.69 49.10 54.90 41.80 50.22
VisionReward 51.56 72.41 64.00 72.10 56.77 67.59
VideoReward 49.41 72.89 54.20 62.25 61.26 73.59
GT-SVJ 64.26 75.15 66.36 77.76 57.01 68.57
GT-SVJ (p = 0) 49.36 62.41 62.79 76.12 55.42 65.37
GT-SVJ (No DM) 47.62 59.12 61.82 73.59 53.14 63.21
"""
"""Table 1 of the paper, typed a second time from its text."""


@pytest.fixture(scope="module")
def result():
    data = made_up(24, prompts=6, dimensions=("VQ", "Overall"))
    return evaluate_comparisons(data, made_up_scores(data, aspects=()), settings=FAST)


def on(result, benchmark, scorer="mine", **changes):
    return replace(result, benchmark=benchmark, scorer=scorer, **changes)


def test_the_published_rows_are_those_printed(result):
    header, *rows = accuracy_table({"a": on(result, "genai-bench")})
    assert header == [
        "method",
        "source",
        *("GenAI-Bench w/ ties", "GenAI-Bench w/o ties"),
        *("MonetBench w/ ties", "MonetBench w/o ties"),
        *("VideoGen-RewardBench w/ ties", "VideoGen-RewardBench w/o ties"),
    ]
    printed = [line.rsplit(maxsplit=6) for line in PRINTED.split("\n") if line]
    assert [[row[0], *row[2:]] for row in rows[:6]] == printed
    assert {row[1] for row in rows[:6]} == {"quoted from the paper, not measured here"}
    assert len(PUBLISHED) == 6


def cells(result):
    item = next(a for a in result.dimensions if a.dimension == "Overall").accuracies
    return [
        f"{100 * item[name].accuracy:.2f} (n {item[name].pairs})"
        for name in ("with_ties", "without_ties")
    ]


def test_measured_results_stand_in_their_benchmarks_column(result):
    results = {
        "one": on(result, "monetbench"),
        "two": on(result, "videogen-rewardbench"),
        "three": on(result, "genai-bench", scorer="other"),
    }
    rows = accuracy_table(results)[7:]
    assert rows == [
        ["mine", "measured", "", "", *cells(result), *cells(result)],
        ["other", "measured", *cells(result), "", "", "", ""],
    ]


def test_own_pairs_have_a_column_for_each_data_set(result):
    results = {
        "one": on(result, "pairs"),
        "two": on(result, "pairs", scorer="other"),
        "three": on(result, "pairs", fingerprint="f" * 64, data="else"),
        "four": on(result, "pairs", fingerprint="e" * 64, data="else"),
    }
    header, *rows = accuracy_table(results)
    assert header[8::2] == [
        "pairs: made up w/ ties",
        "pairs: else (ffffffff) w/ ties",
        "pairs: else (eeeeeeee) w/ ties",
    ]
    assert rows[0][8:] == [""] * 6, "the paper says nothing about them"
    assert rows[6] == ["mine", "measured", *[""] * 6, *cells(result) * 3]
    assert rows[7] == ["other", "measured", *[""] * 6, *cells(result), *[""] * 4]


def test_incomplete_results_are_marked(result):
    short = on(result, "genai-bench", comparisons=result.evaluated + 3)
    assert accuracy_table({"a": short})[7][2].endswith(", incomplete)")
    assert basis_table({"a": short})[1][6] == f"{result.evaluated} of {result.evaluated + 3}"


def test_different_data_under_one_benchmark_are_pointed_out(result):
    same = {"a": on(result, "genai-bench"), "b": on(result, "genai-bench", "other")}
    assert "CAUTION" not in comparison_text(same)
    other = on(result, "genai-bench", "other", fingerprint="f" * 64)
    assert "CAUTION: the results on GenAI-Bench come from different data" in comparison_text(
        {**same, "b": other}
    )


def test_one_scorer_twice_is_refused(result):
    with pytest.raises(ValueError, match="a and b are both of 'mine' on the same benchmark"):
        accuracy_table({"a": on(result, "genai-bench"), "b": on(result, "genai-bench")})


def test_results_without_an_overall_label_are_refused(result):
    twice = tuple(
        replace(a, dimension=name) for a, name in zip(result.dimensions, "xy", strict=True)
    )
    with pytest.raises(ValueError, match="a has the labels x, y and none is called overall"):
        accuracy_table({"a": on(result, "pairs", dimensions=twice)})


def test_both_forms_carry_the_same_numbers(result):
    results = {"a": on(result, "genai-bench", scorer="my|model")}
    text, markdown = comparison_text(results), comparison_markdown(results)
    for part in (
        "quoted from the paper, not measured here",
        "64.26",
        cells(result)[0],
        "MonteBench",
    ):
        assert part in text
        assert part in markdown
    assert "my\\|model" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")][:9]
    assert {line.replace("\\|", "").count("|") for line in table} == {9}


def test_files_are_read_and_named_when_unsound(tmp_path, result):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(result.to_json())
    bad.write_text("{}")
    assert read_results([good]) == {str(good): result}
    with pytest.raises(ValueError, match=r"bad\.json: format_version is None"):
        read_results([good, bad])
