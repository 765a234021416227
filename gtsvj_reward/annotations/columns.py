"""Columns of a table as checked values: text, scores, labels."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gtsvj_reward.annotations.aspects import AspectScale
from gtsvj_reward.annotations.names import names_video
from gtsvj_reward.tables import Column

_SHOWN = 5
"""How many values and rows a message names."""


def texts(column: Column) -> list[str]:
    """Cells that must be text, kept as they are.

    Raises:
        ValueError: for empty cells and cells that are not text, with their rows.
    """
    check(
        column,
        [not isinstance(cell, str) or not cell.strip() for cell in column.cells],
        "are empty or no text",
    )
    return list(column.cells)


def videos(column: Column) -> list[str]:
    """Cells that name videos, kept as they are.

    Raises:
        ValueError: for cells that name none, with their rows.
    """
    names = texts(column)
    check(column, [not names_video(name) for name in names], "name no video")
    return names


def optional_texts(column: Column) -> list[str | None]:
    """Cells that are text, kept as they are, or empty (None).

    Raises:
        ValueError: for cells that are neither, with their rows.
    """
    check(
        column,
        [cell is not None and not isinstance(cell, str) for cell in column.cells],
        "are not text",
    )
    return [cell or None for cell in column.cells]


def identifiers(column: Column) -> list[str | None]:
    """Cells that name groups, as text, or None if empty.

    Raises:
        ValueError: for cells that are neither text nor whole numbers, with their rows.
    """
    # Programs turn a column of whole numbers into 1.0, 2.0, ... where a cell is empty.
    cells = [
        int(cell) if isinstance(cell, float) and cell.is_integer() else cell
        for cell in column.cells
    ]
    sound = [
        cell is None or (isinstance(cell, (str, int)) and not isinstance(cell, bool))
        for cell in cells
    ]
    check(column, [not is_sound for is_sound in sound], "are neither text nor whole numbers")
    return [None if cell is None or cell == "" else str(cell) for cell in cells]


def scores(column: Column, scale: AspectScale | None = None) -> list[float | None]:
    """Cells that are finite numbers, or text of them, or empty (None).

    Args:
        column: what to read.
        scale: range that they must be in; None: any.

    Raises:
        ValueError: for other cells, including NaN and values out of range, with their rows.
    """
    numbers = [number(cell) for cell in column.cells]
    check(
        column,
        [value is not None and not math.isfinite(value) for value in numbers],
        "are not finite numbers; leave a cell empty where there is no score",
    )
    if scale is not None:
        check(
            column,
            [value is not None and not scale.low <= value <= scale.high for value in numbers],
            f"are outside the scale {scale.low:g} to {scale.high:g}",
        )
    return numbers


def labels(
    column: Column, known: Mapping[str, int | None], hint: str = ""
) -> tuple[list[int | None], Counter[str]]:
    """Cells that are one of a few words, ignoring case and surrounding spaces.

    Args:
        column: what to read.
        known: word in lower case -> its label; None: the format leaves it out. `""` stands for an
            empty cell.
        hint: added to the message about other cells.

    Returns:
        A label for each row, None where it is left out, and how many were left out by reason.

    Raises:
        ValueError: for other cells, with their rows.
    """
    words = [word(cell) for cell in column.cells]
    expected = ", ".join(each or "an empty cell" for each in known)
    check(
        column,
        [each not in known for each in words],
        f"are not a known label, expected {expected}{hint}",
    )
    left_out = [each or "empty" for each in words if known[each] is None]
    return [known[each] for each in words], Counter(f"`{column.name}` is {w}" for w in left_out)


def check(column: Column, wrong: Sequence[bool], complaint: str) -> None:
    """Reject a column with an invalid cell.

    Args:
        column: what was read.
        wrong: for each cell, whether it is.
        complaint: what is wrong with those, and what was expected.

    Raises:
        ValueError: with the number of such cells, their values, and the first rows.
    """
    found = [index for index, is_wrong in enumerate(wrong) if is_wrong]
    if not found:
        return
    values = Counter(_shortened(column.cells[index]) for index in found)
    shown = ", ".join(f"{value} ({count} times)" for value, count in values.most_common(_SHOWN))
    rows = ", ".join(column.rows[index] for index in found[:_SHOWN])
    raise ValueError(
        f"{column.table}: {len(found)} of {len(wrong)} cells of `{column.name}` {complaint}. "
        f"Found {shown}{', ...' if len(values) > _SHOWN else ''}; "
        f"in rows {rows}{', ...' if len(found) > _SHOWN else ''}"
    )


def is_nameless(name: str) -> bool:
    """Whether a column has no name, or one that pandas gives to such columns."""
    return re.fullmatch(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__", name) is not None


def number(cell: Any) -> float | None:
    """A cell as a number; NaN for what is none, None for an empty cell."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        return math.nan
    try:
        # Python reads 1_0 as 10, other programs do not.
        return math.nan if "_" in str(cell) else float(cell)
    except (ValueError, OverflowError):
        return math.nan


def word(cell: Any) -> str:
    """A label in lower case; numbers in their shortest form, so that 1.0 equals 1."""
    value = number(cell)
    if value is None:
        return ""
    # -0.0 + 0.0 is 0.0.
    return f"{value + 0.0:g}" if math.isfinite(value) else str(cell).strip().lower()


def _shortened(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}..."
