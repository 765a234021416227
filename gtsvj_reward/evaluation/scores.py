"""Tables of scores, one row per video, whoever computed them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from gtsvj_reward.annotations.columns import is_nameless, number, videos
from gtsvj_reward.annotations.names import Identity, identity
from gtsvj_reward.tables import Column, read_table

VIDEO = "video"
"""Column that names the video."""
PREFERRED_COLUMNS = ("reward", "score")
"""Taken in this order when no column is named."""
ASPECT_PREFIX = "aspect:"
"""Prefix of aspect columns."""
UNCERTAINTY = "uncertainty"
"""Column of the standard deviation of the scores in a column of `PREFERRED_COLUMNS`."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores of videos in one or several columns; higher is better.

    Made by `read_scores`, or from a dictionary:
    `ScoreTable(name="mine", columns={"score": {"a.mp4": 0.3, "b.mp4": -1.0}})`.
    """

    name: str
    """Name of the scorer in results, and of the table in messages."""
    columns: Mapping[str, Mapping[str, float]]
    """Column -> video -> score; a video without a value in a column is left out of it."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Column that cannot be used -> why, with the first cell that is no number. Using such a column
    is an error; no other column replaces it."""

    @property
    def videos(self) -> tuple[str, ...]:
        """All videos with a value in some column, in order of appearance."""
        return tuple(dict.fromkeys(v for scores in self.columns.values() for v in scores))

    @property
    def aspects(self) -> tuple[str, ...]:
        """The columns `aspect:<name>`."""
        names = (*self.columns, *self.unreadable)
        return tuple(name for name in names if name.startswith(ASPECT_PREFIX))

    def default_column(self) -> str:
        """`reward`, else `score`, else the only column.

        Raises:
            ValueError: if that names none, with the columns there are; or one that cannot be read,
                with the cell.
        """
        for name in PREFERRED_COLUMNS:
            if name in self.unreadable:
                self._refuse(name)
            if name in self.columns:
                return name
        if self.unreadable:
            self._refuse(next(iter(self.unreadable)))
        if len(self.columns) != 1:
            raise ValueError(
                f"{self.name} has neither `reward` nor `score` and {len(self.columns)} numeric "
                f"columns ({', '.join(self.columns)}): choose one with `--column`"
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
        for name in names:
            if name in self.unreadable:
                self._refuse(name)
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

    def uncertainties(self, column: str) -> Mapping[str, float]:
        """Video -> standard deviation of its score in a column; empty if the table has none."""
        return self.columns.get(UNCERTAINTY, {}) if column in PREFERRED_COLUMNS else {}

    def _refuse(self, name: str) -> NoReturn:
        raise ValueError(
            f"{self.name}: {self.unreadable[name]}. Fix the column, or choose another with "
            "`--column` (`column`)"
        )


def read_scores(path: str | Path, *, name: str | None = None) -> ScoreTable:
    """Read a table with a column `video` and columns of scores; columns of text are ignored.

    A column is numeric if each of its cells is a finite number or empty, and some are numbers. One
    that has both numbers and other cells is `unreadable`, and so are `reward`, `score` and
    `aspect:<name>` with any cell that is no number, NaN and infinity among them.

    Args:
        path: CSV, JSONL, JSON or parquet, such as `gtsvj score` writes.
        name: what results call the scorer; the file's name by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a table without `video` or without numeric columns, a row without a video,
            or a video with two different scores.
    """
    table = read_table(path)
    names = table.column(VIDEO)
    videos(names)
    columns: dict[str, dict[str, float]] = {}
    unreadable: dict[str, str] = {}
    for name_of, cells in table.cells.items():
        if name_of == VIDEO or is_nameless(name_of):
            continue
        values = [number(cell) for cell in cells]
        filled = [value for value in values if value is not None]
        sound = [math.isfinite(value) for value in filled]
        called = name_of in PREFERRED_COLUMNS or name_of.startswith(ASPECT_PREFIX)
        if filled and all(sound):
            columns[name_of] = _by_video(names, name_of, values)
        elif any(sound) or (called and filled):
            unreadable[name_of] = _complaint(table.column(name_of), values)
    if not columns and not unreadable:
        raise ValueError(
            f"{path} has no column of numbers beside `{VIDEO}`, only {', '.join(table.cells)}"
        )
    return ScoreTable(name=name or Path(path).name, columns=columns, unreadable=unreadable)


def _complaint(column: Column, values: Sequence[float | None]) -> str:
    """How many cells are no numbers, and which is the first."""
    wrong = [i for i, v in enumerate(values) if v is not None and not math.isfinite(v)]
    return (
        f"{len(wrong)} of {len(values)} cells of `{column.name}` are no finite numbers, the first "
        f"is {column.cells[wrong[0]]!r} in {column.rows[wrong[0]]}"
    )


def _by_video(listed: Column, column: str, values: Sequence[float | None]) -> dict[str, float]:
    scores: dict[str, float] = {}
    known_as: dict[Identity, str] = {}
    clashes = []
    for video, value in zip(listed.cells, values, strict=True):
        if value is None:
            continue
        known = scores.setdefault(known_as.setdefault(identity(video), video), value)
        if known != value:
            clashes.append(f"{video} ({known:g} and {value:g})")
    if clashes:
        raise ValueError(
            f"{listed.table}: {len(clashes)} rows repeat a video with another value of "
            f"`{column}`: {named(clashes)}; keep one score per video"
        )
    return scores


def named(items: list[str], count: int = 5) -> str:
    """The first few of a list, and whether there are more."""
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more
