"""VideoDPO: pairs of a winner and a loser, chosen by an automatic score."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gtsvj_reward.annotations.columns import check
from gtsvj_reward.annotations.layout import ComparisonLayout
from gtsvj_reward.annotations.records import Comparisons
from gtsvj_reward.tables import Column, Table, read_table

SHORTEST = 1.0
"""Seconds; shorter videos are left out by the original loader, which moves all numbers after."""

_LAYOUT = ComparisonLayout(
    video_a="video1",
    video_b="video2",
    labels={"overall": "winner"},
    words={"a": 1},
    prompt="frame_caption",
)


def read_videodpo(path: str | Path) -> Comparisons:
    """Read VideoDPO's `pair.json` and the `metadata.json` beside it; the dimension is `overall`.

    `video1`, which won, and `video2` are numbers of videos in `metadata.json`, whose
    `basic.clip_path` names them. The prompt is `frame_caption`, or the first of a list. `label` and
    `score` are not read: the original loader does not use the one, and weights losses by the other.

    Args:
        path: `pair.json`.

    Raises:
        FileNotFoundError: without `metadata.json`.
        ValueError: for a missing column, a number that no video has, videos shorter than a second
            (which the original loader drops before it numbers them), or a cell that names no video;
            with rows and counts.
    """
    table = read_table(path)
    table.require(["video1", "video2", "frame_caption"])
    metadata = table.path.with_name("metadata.json")
    if not metadata.is_file():
        raise FileNotFoundError(
            f"no {metadata}: it names the videos of {table.path.name}, put it beside that file"
        )
    names = _clip_paths(read_table(metadata))
    cells: dict[str, tuple[Any, ...]] = {
        "video1": _named(table.column("video1"), names),
        "video2": _named(table.column("video2"), names),
        "frame_caption": tuple(
            cell[0] if isinstance(cell, list) and cell else cell
            for cell in table.cells["frame_caption"]
        ),
        "winner": ("A",) * len(table.rows),
    }
    return _LAYOUT.read(replace(table, cells={**table.cells, **cells}), "VideoDPO")


def _clip_paths(table: Table) -> tuple[Any, ...]:
    """The videos in their order."""
    column = table.column("basic")
    wanted = ("clip_path", "clip_duration")
    check(
        column,
        [
            not isinstance(cell, dict) or any(name not in cell for name in wanted)
            for cell in column.cells
        ],
        "are no objects with `clip_path` and `clip_duration`",
    )
    durations = [cell["clip_duration"] for cell in column.cells]
    check(
        replace(column, name="basic.clip_duration", cells=tuple(durations)),
        [not isinstance(value, (int, float)) or value < SHORTEST for value in durations],
        f"are not at least {SHORTEST:g} s, so that it is not known which videos numbers mean",
    )
    return tuple(cell["clip_path"] for cell in column.cells)


def _named(column: Column, names: tuple[Any, ...]) -> tuple[Any, ...]:
    check(
        column,
        [
            not isinstance(cell, int) or isinstance(cell, bool) or not 0 <= cell < len(names)
            for cell in column.cells
        ],
        f"are not numbers of the {len(names)} videos in `metadata.json`",
    )
    return tuple(names[cell] for cell in column.cells)
