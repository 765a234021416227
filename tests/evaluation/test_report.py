"""result.md says everything that a number rests on."""

from dataclasses import replace

import pytest

from gtsvj_reward.evaluation import METHODS, evaluate_comparisons, result_markdown, result_text
from gtsvj_reward.evaluation.report import accuracy_rows
from tests.evaluation.made_up import FAST, MODELS, made_up, made_up_scores


@pytest.fixture(scope="module")
def result():
    data = replace(made_up(24, prompts=6, dimensions=("VQ", "overall")), skipped={"`VQ` is x": 4})
    table = made_up_scores(data, aspects=("clear",))
    return evaluate_comparisons(data, table, settings=FAST)


def test_every_accuracy_has_its_line(result):
    header, *rows = accuracy_rows(result.dimensions)
    lines = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(lines) == sum(len(a.accuracies) for a in result.dimensions)
    for item in result.dimensions:
        for name, found in item.accuracies.items():
            [line] = [
                x for x in lines if (x["label"], x["method"]) == (item.dimension, METHODS[name])
            ]
            assert float(line["accuracy"]) == pytest.approx(100 * found.accuracy, abs=0.005)
            assert float(line["chance"]) == pytest.approx(100 * found.chance, abs=0.005)
            assert float(line["constant"]) == pytest.approx(100 * found.constant, abs=0.005)
            assert int(line["pairs"]) == found.pairs
            assert int(line["human ties"]) == found.human_ties
            assert int(line["predicted ties"]) == found.predicted_ties
            assert (line["threshold"] == "") == (found.threshold is None)
    held = next(x for x in lines if x["method"] == METHODS["held_out_with_ties"])
    fitted = result.dimensions[0].accuracies["held_out_with_ties"].calibration_pairs
    assert held["fitted on"] == f"{fitted} other pairs"


def test_the_page_and_the_printed_lines(result):
    page = result_markdown(result)
    for part in (
        "n = 24 of 24 comparisons",
        "4 labels left out: `VQ` is x",
        "whole prompts",
        *MODELS,
    ):
        assert part in page
    for heading in ("## By label", "## By generator", "## Aspects against `overall`"):
        assert heading in page
    assert "incomplete" not in page
    short = replace(result, evaluated=20, missing_videos=("a", "b"))
    assert "incomplete: 4 comparisons left out, 2 videos without a score" in result_text(short)


def test_tables_are_whole(result):
    widths = set()
    for line in result_markdown(result).splitlines():
        if line.startswith("|"):
            widths.add(line.count("|"))
        elif widths:
            assert len(widths) == 1
            widths = set()
