"""Shares of votes for each of two videos: data sets of Rapidata and of Datapoint AI."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtsvj_reward.annotations.aspects import AspectScale
from gtsvj_reward.annotations.columns import check, scores
from gtsvj_reward.annotations.layout import ComparisonLayout
from gtsvj_reward.annotations.records import Comparisons
from gtsvj_reward.tables import Column, Table, quoted, read_table

SHARE = "weighted_results{side}_{dimension}"
"""Column of the share of votes for a side, 1 or 2."""

OVERALL = "Preference"
"""Rapidata's name of the question about overall preference."""

ROUNDING = 0.01
"""By which two shares may miss 1 together."""


def read_rapidata(path: str | Path) -> Comparisons:
    """Read a set of Rapidata's text-to-video preferences: a probability for each question.

    Columns: `prompt`, `weighted_results1_<question>` and `weighted_results2_<question>`, and names
    of videos, `file_name1` and `file_name2` or else `video1` and `video2`; `model1` and `model2`
    where there are any. The probability that the first video is better is its share of the two.
    The question `Preference` is the dimension `overall`.

    Args:
        path: a parquet file, or the same rows as JSON, JSONL or CSV.

    Raises:
        ValueError: for a missing column, shares outside 0..1, that do not add up to 1, or of which
            a row has only one, or a cell that names no video; with rows and counts.
    """
    return _read(path, "Rapidata text-to-video preferences")


def read_datapoint(path: str | Path) -> Comparisons:
    """Read a set of Datapoint AI's pairwise text-to-video preferences; as `read_rapidata`."""
    return _read(path, "Datapoint AI text-to-video preferences")


def _read(path: str | Path, name: str) -> Comparisons:
    table = read_table(path)
    start = SHARE.format(side=1, dimension="")
    questions = [column.removeprefix(start) for column in table.cells if column.startswith(start)]
    if not questions:
        raise ValueError(
            f"{table.path} has no column `{start}<question>`, it has {quoted(table.cells)}: "
            "is it the right file, and of the right format?"
        )
    own = "file_name" if "file_name1" in table.cells else "video"
    table.require(["prompt", f"{own}1", f"{own}2"])
    shares = {question: _probabilities(table, question) for question in questions}
    named = {f"{own}{side}": _names(table.column(f"{own}{side}")) for side in (1, 2)}
    with_models = {"model1", "model2"} <= table.cells.keys()
    layout = ComparisonLayout(
        video_a=f"{own}1",
        video_b=f"{own}2",
        labels={},
        words={},
        probabilities={("overall" if q == OVERALL else q): _computed(q) for q in questions},
        prompt="prompt",
        model_a="model1" if with_models else None,
        model_b="model2" if with_models else None,
    )
    computed: Mapping[str, tuple[Any, ...]] = {_computed(q): cells for q, cells in shares.items()}
    return layout.read(replace(table, cells={**table.cells, **named, **computed}), name)


def _computed(question: str) -> str:
    """Name of a question's share in messages."""
    return f"{SHARE.format(side=1, dimension=question)} of both"


def _probabilities(table: Table, question: str) -> tuple[float | None, ...]:
    """The share of the first video in a question, None where there are no votes."""
    columns = [table.column(SHARE.format(side=side, dimension=question)) for side in (1, 2)]
    first, second = (scores(column, AspectScale(column.name, 0, 1)) for column in columns)
    pairs = list(zip(first, second, strict=True))
    check(
        columns[1],
        [(a is None) != (b is None) for a, b in pairs],
        f"and `{columns[0].name}` are not both there: a row has both shares or none",
    )
    check(
        columns[1],
        [a is not None and b is not None and abs(a + b - 1) > ROUNDING for a, b in pairs],
        f"and `{columns[0].name}` do not add up to 1: votes for neither are not documented",
    )
    return tuple(None if a is None or b is None else a / (a + b) for a, b in pairs)


def _names(column: Column) -> tuple[Any, ...]:
    """Cells as they are, but of a video in the file itself the path that it came from."""
    embedded = [isinstance(cell, dict) and "bytes" in cell for cell in column.cells]
    check(
        column,
        [
            is_in and not cell.get("path")
            for is_in, cell in zip(embedded, column.cells, strict=True)
        ],
        "hold a video without its name: save the videos and add the columns `file_name1` and "
        "`file_name2`",
    )
    return tuple(
        cell["path"] if is_in else cell for is_in, cell in zip(embedded, column.cells, strict=True)
    )
