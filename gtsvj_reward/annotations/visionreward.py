"""VisionRewardDB-Video: 21 aspect ratings (`train`), comparisons (`regression`, `test`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gtsvj_reward.annotations.aspects import VISIONREWARD_ASPECTS, chosen_names
from gtsvj_reward.annotations.columns import scores
from gtsvj_reward.annotations.layout import ComparisonLayout, ratings_of
from gtsvj_reward.annotations.records import Comparisons, Ratings
from gtsvj_reward.tables import Column, read_table

_COMPARISONS = ComparisonLayout(
    video_a="video1_path",
    video_b="video2_path",
    labels={"overall": "standard_answer"},
    words={"video1": 1, "video2": -1, "tie": 0},
    prompt="prompt",
)


def read_visionreward_ratings(
    path: str | Path,
    *,
    zero_is_missing: bool = False,
    id_column: str | None = "internal_id",
    video_column: str = "video_path",
    aspects: Sequence[str] | None = None,
) -> Ratings:
    """Read `train` of VisionRewardDB-Video.

    Labels are looked up by name: the order of keys in the files is not fixed. An aspect whose
    label is empty is left out of its row and counted.

    Args:
        path: a parquet file, or the folder of them.
        zero_is_missing: leave out, and count, labels of 0 where the scale begins at 1. Whether 0
            means "not applicable" there is not documented, so by default it is an error.
        id_column: column that identifies a row; None numbers the rows.
        video_column: what names a video: `"video_path"`, or `"url"`.
        aspects: names of those to read; None: all 21.

    Raises:
        ValueError: for a missing column or aspect, an aspect that is not one of the 21, a repeated
            id, or a label out of range; with rows and counts.
    """
    table = read_table(path)
    table.require(["prompt", video_column, "annotation"])
    if id_column is not None:
        table = table.identified_by(id_column)
    annotation = table.column("annotation")
    _check_aspects(annotation)
    skipped: dict[str, int] = {}
    labels: dict[str, list[float | None]] = {}
    known = {scale.name: scale for scale in VISIONREWARD_ASPECTS}
    chosen = known if aspects is None else chosen_names(known, aspects, str(path))
    scales = tuple(known[name] for name in chosen)
    for scale in scales:
        column = _member(annotation, scale.name)
        zeros = column.cells.count(0) if zero_is_missing and scale.low > 0 else 0
        values = scores(_without_zeros(column) if zeros else column, scale)
        skipped[f"`{scale.name}` is 0"] = zeros
        skipped[f"`{scale.name}` is empty"] = values.count(None) - zeros
        labels[scale.name] = values
    return ratings_of(
        table,
        "VisionRewardDB-Video train",
        labels,
        video=video_column,
        prompt="prompt",
        skipped=skipped,
        scales=scales,
    )


def read_visionreward_comparisons(
    path: str | Path,
    *,
    name: str = "VisionRewardDB-Video",
    id_column: str | None = "internal_id",
) -> Comparisons:
    """Read `regression` or `test` of VisionRewardDB-Video; their one dimension is `overall`.

    Args:
        path: a parquet file, or the folder of them.
        name: what results call it.
        id_column: column that identifies a row; None numbers the rows.

    Raises:
        ValueError: for a missing column, a repeated id, or a `standard_answer` other than
            video1, video2 and tie; with rows and counts.
    """
    table = read_table(path)
    if id_column is not None:
        table = table.identified_by(id_column)
    return _COMPARISONS.read(table, name)


def read_monetbench(path: str | Path) -> Comparisons:
    """Read `test` of VisionRewardDB-Video, which older revisions call `monetbench`."""
    return read_visionreward_comparisons(path, name="MonetBench (VisionRewardDB-Video test)")


def _check_aspects(annotation: Column) -> None:
    """Each annotation must be empty or name the 21 aspects, no more and no less."""
    names = {scale.name for scale in VISIONREWARD_ASPECTS}
    for row, cell in zip(annotation.rows, annotation.cells, strict=True):
        if cell is not None and not isinstance(cell, dict):
            raise ValueError(
                f"{annotation.table}: `annotation` of {row} must hold aspects and their labels, "
                f"got {type(cell).__name__}"
            )
        if cell is not None and cell.keys() != names:
            raise ValueError(
                f"{annotation.table}: `annotation` of {row} lacks {sorted(names - cell.keys())} "
                f"and has {sorted(cell.keys() - names)}, which are not aspects of "
                "VisionRewardDB-Video: is it another revision?"
            )


def _member(annotation: Column, aspect: str) -> Column:
    cells: tuple[Any, ...] = tuple(
        None if cell is None else cell[aspect] for cell in annotation.cells
    )
    return Column(name=aspect, table=annotation.table, rows=annotation.rows, cells=cells)


def _without_zeros(column: Column) -> Column:
    cells = tuple(None if cell == 0 else cell for cell in column.cells)
    return Column(name=column.name, table=column.table, rows=column.rows, cells=cells)
