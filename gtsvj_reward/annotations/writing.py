"""Writers of the plain formats; the readers are in `plain`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from gtsvj_reward.annotations.plain import RATING_COLUMNS
from gtsvj_reward.annotations.records import Comparison, Comparisons, Rating, Ratings
from gtsvj_reward.tables import first_few, quoted, write_table

_WRITTEN = {1: "A", -1: "B", 0: "tie", None: None}


def write_comparisons(path: str | Path, comparisons: Comparisons) -> None:
    """Write comparisons in the plain format; `read_comparisons` gives the same rows back.

    The name, and how many labels were left out and why, are not written.

    Args:
        path: a file ending in `.csv` or `.jsonl`.
        comparisons: what to write.

    Raises:
        ValueError: for another suffix, or rows that would not read back as they are: an empty text,
            a repeated id, a label that is not +1, -1 or 0, or one of a dimension that is not in
            `dimensions`.
    """
    _check_rows(comparisons.rows, [row.labels for row in comparisons.rows], comparisons.dimensions)
    wrong = [row.row for row in comparisons.rows if not set(row.labels.values()) <= {-1, 0, 1}]
    if wrong:
        raise ValueError(f"{len(wrong)} rows have labels other than +1, -1, 0: {first_few(wrong)}")
    columns: dict[str, Callable[[Comparison], object]] = {
        "row": lambda row: row.row,
        "video_a": lambda row: row.video_a,
        "video_b": lambda row: row.video_b,
    }
    for name in comparisons.dimensions:
        columns[f"label_{name}"] = partial(_written_label, name=name)
        if any(name in row.probabilities for row in comparisons.rows):
            columns[f"probability_{name}"] = partial(_written_probability, name=name)
    if any(row.weight != 1 for row in comparisons.rows):
        columns["weight"] = lambda row: row.weight
    columns |= {
        "prompt": lambda row: row.prompt,
        "model_a": lambda row: row.model_a,
        "model_b": lambda row: row.model_b,
        "group": lambda row: row.group,
    }
    cells = ([cell(row) for cell in columns.values()] for row in comparisons.rows)
    write_table(path, list(columns), cells)


def write_ratings(path: str | Path, ratings: Ratings) -> None:
    """Write ratings in the plain format; `read_ratings` gives the same rows back.

    The name, the ranges, and how many labels were left out and why, are not written.

    Args:
        path: a file ending in `.csv` or `.jsonl`.
        ratings: what to write.

    Raises:
        ValueError: for another suffix, or rows that would not read back as they are: an empty text,
            a repeated id, a score that is not finite, or one of an aspect that is not in `aspects`;
            or an aspect called like another column.
    """
    if set(ratings.aspects) & set(RATING_COLUMNS):
        raise ValueError(
            f"aspects cannot be called {quoted(RATING_COLUMNS)}, got {quoted(ratings.aspects)}"
        )
    _check_rows(ratings.rows, [row.scores for row in ratings.rows], ratings.aspects)
    write_table(
        path,
        ["row", "video", *ratings.aspects, "prompt", "model", "group"],
        (
            [
                *(row.row, row.video),
                *(row.scores.get(aspect) for aspect in ratings.aspects),
                *(row.prompt, row.model, row.group),
            ]
            for row in ratings.rows
        ),
    )


def _written_label(row: Comparison, name: str) -> str | None:
    return None if name in row.probabilities else _WRITTEN[row.labels.get(name)]


def _written_probability(row: Comparison, name: str) -> float | None:
    return row.probabilities.get(name)


def _check_rows(
    rows: Sequence[Comparison | Rating],
    values: Sequence[Mapping[str, float]],
    known: tuple[str, ...],
) -> None:
    """Refuse rows that would not read back as they are."""
    unsound = []
    ids = set()
    for row, labels in zip(rows, values, strict=True):
        if "" in vars(row).values():
            unsound.append(f"{row.row!r} has an empty text, and None stands for no text")
        if row.row in ids:
            unsound.append(f"{row.row!r} comes twice")
        if not labels.keys() <= set(known) or not all(map(math.isfinite, labels.values())):
            unsound.append(f"{row.row!r} has {dict(labels)}, expected finite values of {known}")
        ids.add(row.row)
    if unsound:
        raise ValueError(f"{len(unsound)} of {len(rows)} rows: {first_few(unsound)}")
