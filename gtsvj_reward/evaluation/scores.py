"""Tables of scores, one row per video, whoever computed them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtsvj_reward.annotations.names import Identity, identity
from gtsvj_reward.tables import Column, read_table

VIDEO = "video"
"""Column that names the video."""
PREFERRED_COLUMNS = ("reward", "score")
"""Taken in this order when no column is named."""
ASPECT_PREFIX = "aspect:"
"""What the names of aspect columns begin with."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores of videos in one or several columns; higher is better.

    Made by `read_scores`, or from a dictionary:
    `ScoreTable(name="mine", columns={"score": {"a.mp4": 0.3, "b.mp4": -1.0}})`.
    """

    name: str
    """What results call the scorer, and messages the table."""
    columns: Mapping[str, Mapping[str, float]]
    """Column -> video -> score; a video without a value in a column is left out of it."""

    @property
    def videos(self) -> tuple[str, ...]:
        """All videos with a value in some column, in order of appearance."""
        return tuple(dict.fromkeys(v for scores in self.columns.values() for v in scores))

    @property
    def aspects(self) -> tuple[str, ...]:
        """The columns `aspect:<name>`."""
        return tuple(name for name in self.columns if name.startswith(ASPECT_PREFIX))

    def default_column(self) -> str:
        """`reward`, else `score`, else the only column.

        Raises:
            ValueError: if that names none, with the columns there are.
        """
        for name in PREFERRED_COLUMNS:
            if name in self.columns:
                return name
        if len(self.columns) != 1:
            raise ValueError(
                f"{self.name} has neither `reward` nor `score` and {len(self.columns)} numeric "
                f"columns ({', '.join(self.columns)}): say which with `--column`"
            )
        return next(iter(self.columns))

    def scores(self, column: str) -> dict[str, float]:
        """Video -> score in a column, or in the sum of columns joined by `+`.

        A video that lacks a value in one of the columns is left out.

        Raises:
            ValueError: for a column that is not there, or a score that is NaN or infinite; with the
                number of such scores and the first videos.
        """
        names = [column] if column in self.columns else column.split("+")
        unknown = [name for name in names if name not in self.columns]
        if unknown:
            raise ValueError(
                f"{self.name} has no numeric column {', '.join(map(repr, unknown))}, it has: "
                f"{', '.join(self.columns)}"
            )
        parts = [self.columns[name] for name in names]
        summed = {
            video: sum(part[video] for part in parts)
            for video in parts[0]
            if all(video in part for part in parts)
        }
        bad = [video for video, score in summed.items() if not math.isfinite(score)]
        if bad:
            raise ValueError(
                f"{len(bad)} of {len(summed)} scores in `{column}` of {self.name} are NaN or "
                f"infinite: {named(bad)}; score these videos again or take their rows out"
            )
        return summed


def read_scores(path: str | Path, *, name: str | None = None) -> ScoreTable:
    """Read a table with a column `video` and numeric columns; other columns are ignored.

    A column is numeric if each of its cells is a number or empty, and some are numbers.

    Args:
        path: CSV, JSONL, JSON or parquet, such as `gtsvj score` writes.
        name: what results call the scorer; the file's name by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a table without `video` or without numeric columns, a row without a video,
            or a video that stands twice with different scores.
    """
    table = read_table(path)
    videos = table.column(VIDEO)
    empty = [
        row
        for row, cell in zip(videos.rows, videos.cells, strict=True)
        if not (isinstance(cell, str) and cell)
    ]
    if empty:
        raise ValueError(f"{path}: {len(empty)} rows name no video in `{VIDEO}`: {named(empty)}")
    columns = {}
    for column in table.cells:
        values = [_number(cell) for cell in table.cells[column]]
        filled = [value for value in values if value is not None]
        if column != VIDEO and filled and all(not isinstance(value, str) for value in filled):
            columns[column] = _by_video(videos, column, values)
    if not columns:
        raise ValueError(
            f"{path} has no column of numbers beside `{VIDEO}`, only {', '.join(table.cells)}"
        )
    return ScoreTable(name=name or Path(path).name, columns=columns)


def _number(cell: Any) -> float | str | None:
    """A cell as a number, as None if it is empty, as text if it is something else."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return str(cell)
    try:
        return float(cell)
    except ValueError:
        return str(cell)


def _by_video(videos: Column, column: str, values: list[Any]) -> dict[str, float]:
    scores: dict[str, float] = {}
    names: dict[Identity, str] = {}
    clashes = []
    for video, value in zip(videos.cells, values, strict=True):
        if value is None:
            continue
        known = scores.setdefault(names.setdefault(identity(video), video), value)
        if known != value and not (math.isnan(known) and math.isnan(value)):
            clashes.append(f"{video} ({known:g} and {value:g})")
    if clashes:
        raise ValueError(
            f"{videos.table}: {len(clashes)} rows repeat a video with another value of `{column}`: "
            f"{named(clashes)}; keep one score per video"
        )
    return scores


def named(items: list[str], count: int = 5) -> str:
    """The first few of a list, and whether there are more."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more
