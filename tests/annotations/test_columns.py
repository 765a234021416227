"""Cells as text, scores and labels: what counts, what is missing, what is refused."""

import math

import pytest

from gtsvj_reward.annotations.aspects import AspectScale
from gtsvj_reward.annotations.columns import labels, optional_texts, scores, texts
from gtsvj_reward.tables import Column


def column(*cells):
    rows = tuple(f"r{number}" for number in range(len(cells)))
    return Column(name="c", table="t.csv", rows=rows, cells=cells)


def test_text_stays_as_it_is():
    assert texts(column(" a ", "b\n")) == [" a ", "b\n"]
    assert optional_texts(column(" a ", " ", "", None)) == [" a ", " ", None, None]
    with pytest.raises(ValueError, match=r"t.csv: 4 of 5 cells of `c` are empty .* in rows r1, r2"):
        texts(column("a", "", " ", None, 3))
    with pytest.raises(ValueError, match=r"1 of 2 cells of `c` are not text. Found 3 \(1 times\)"):
        optional_texts(column("a", 3))


def test_scores():
    assert scores(column("1", " -2.50 ", 3, 4.5, "1e-3", "", None)) == [
        *(1.0, -2.5, 3.0, 4.5, 0.001),
        *(None, None),
    ]


@pytest.mark.parametrize("cell", [math.nan, math.inf, "nan", "-inf", "x", "1_0", "1,5", True, [1]])
def test_what_is_no_score(cell):
    with pytest.raises(
        ValueError, match=r"1 of 3 cells of `c` are not finite numbers.* in rows r1"
    ):
        scores(column(1, cell, None))


def test_scales_include_their_ends():
    scale = AspectScale("c", 1, 3)
    assert scores(column(1, "3", 2.5, None), scale) == [1.0, 3.0, 2.5, None]
    with pytest.raises(
        ValueError,
        match=r"3 of 4 cells of `c` are outside the scale 1 to 3. "
        r"Found 0 \(2 times\), '3.1' \(1 times\); in rows r0, r2, r3$",
    ):
        scores(column(0, 1, "3.1", 0), scale)


def test_labels():
    known = {"a": 1, "1": 1, "-1": -1, "0": 0, "invalid": None, "": None}
    values, left_out = labels(
        column(" A\t", 1, 1.0, "-1", -1.0, 0, -0.0, "Invalid", "", None), known
    )
    assert values == [1, 1, 1, -1, -1, 0, 0, None, None, None]
    assert left_out == {"`c` is invalid": 1, "`c` is empty": 2}


@pytest.mark.parametrize("cell", ["", None, "aa", 2, 0.5, math.nan, True, ["a"]])
def test_unknown_labels(cell):
    with pytest.raises(
        ValueError,
        match=r"1 of 2 cells of `c` are not a known label, expected a, 1\. .* in rows r1",
    ):
        labels(column("A", cell), {"a": 1, "1": 1})


def test_messages_stay_short():
    with pytest.raises(ValueError, match="1000 of 1000") as caught:
        labels(column(*(f"{number} {'x' * 500}" for number in range(1000))), {"a": 1})
    assert len(str(caught.value)) < 800
