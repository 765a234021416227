"""Cells of one CSV, JSONL, JSON or parquet file; but for decimal commas none is interpreted."""

import csv
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Cells = dict[str, tuple[Any, ...]]
"""Column -> its cells, equally many in each."""

_LONGEST_CELL = 2**31 - 1
"""Characters; Python's own limit is 131,072, which a trajectory or a long prompt exceeds."""


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a text begins that spreadsheets run, and one that was marked as text."""
_NUMBER = re.compile(r"[+-]?[\d.]+([eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+(,\d+)?([eE][+-]?\d+)?\s*")


def read_cells(path: Path) -> Cells:
    """Read a file by its suffix; See `read_table` for accepted files."""
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"expected a file ending in {', '.join(_READERS)}, got {path}")
    return _READERS[path.suffix.lower()](path)


def quoted(names: Iterable[str]) -> str:
    """Names in backticks, for messages."""
    return ", ".join(f"`{name}`" for name in names)


def as_text(cell: Any) -> Any:
    """A cell of CSV that no spreadsheet runs as a formula; `_without_mark` gives it back."""
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _without_mark(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def first_few(complaints: Sequence[str], count: int = 5) -> str:
    """The start of a list of complaints, for messages."""
    return "; ".join(complaints[:count]) + ("; ..." if len(complaints) > count else "")


def _read_csv(path: Path) -> Cells:
    try:
        with path.open(encoding="utf-8-sig", newline="") as opened:
            separator = _separator(path, opened.readline())
            opened.seek(0)
            reader = csv.reader(opened, strict=True, delimiter=separator)
            limit = csv.field_size_limit(_LONGEST_CELL)
            try:
                lines = [[_without_mark(cell) for cell in line] for line in reader if line]
            except csv.Error as error:
                raise ValueError(f"{path} line {reader.line_num} is not CSV: {error}") from error
            finally:
                csv.field_size_limit(limit)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: {error}. In a spreadsheet save it as `CSV UTF-8`"
        ) from error
    if not lines:
        raise ValueError(f"{path} is empty: expected a header and rows")
    header, rows = lines[0], lines[1:]
    _check_names(path, header)
    ragged = [
        f"{path.name} row {number} has {len(row)}"
        for number, row in enumerate(rows, start=1)
        if len(row) != len(header)
    ]
    if ragged:
        raise ValueError(
            f"{path}: each row must have {len(header)} cells like the header, {len(ragged)} of "
            f"{len(rows)} do not: {first_few(ragged)}"
        )
    cells = {name: tuple(row[index] for row in rows) for index, name in enumerate(header)}
    return _with_points(path, cells) if separator == ";" else cells


def _separator(path: Path, header: str) -> str:
    """The separator: whichever of comma, semicolon and tab the header has."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    there = [separator for separator in _SEPARATORS if separator in header]
    if len(there) != 1 or there == [","]:
        return ","
    logger.warning("%s: read as cells between %s", path, _SEPARATORS[there[0]])
    return there[0]


def _with_points(path: Path, cells: Cells) -> Cells:
    """Columns of numbers with decimal commas, as spreadsheets write them with semicolons."""
    found = [
        name
        for name, column in cells.items()
        if any("," in cell for cell in column)
        and all(not cell or _DECIMAL_COMMA.fullmatch(cell) for cell in column)
    ]
    if found:
        logger.warning("%s: decimal commas in %s read as points", path, quoted(found))
    return cells | {name: tuple(cell.replace(",", ".") for cell in cells[name]) for name in found}


def _read_jsonl(path: Path) -> Cells:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    items = [
        (f"{path} line {number}", _parse(line, f"{path} line {number}"))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return _as_columns(items)


def _read_json(path: Path) -> Cells:
    try:
        items = _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    if not isinstance(items, list):
        raise ValueError(f"{path} must hold a list of objects, got {type(items).__name__}")
    return _as_columns([(f"{path} item {n}", item) for n, item in enumerate(items, start=1)])


def _parse(text: str, place: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"{place} has a key twice: {quoted([key for key, _ in pairs])}")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}") from error


def _as_columns(items: list[tuple[str, Any]]) -> Cells:
    for place, item in items:
        if not isinstance(item, dict):
            raise ValueError(f"{place} must be an object, got {type(item).__name__}")
    names = dict.fromkeys(name for _, item in items for name in item)
    return {name: tuple(item.get(name) for _, item in items) for name in names}


def _read_parquet(path: Path) -> Cells:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'parquet files need pyarrow, which is not installed: pip install "gtsvj-reward[data]"'
        ) from error
    try:
        with parquet.ParquetFile(path) as opened:
            content = opened.read()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole parquet file: {error}") from error
    _check_names(path, content.column_names)
    return {name: tuple(content.column(name).to_pylist()) for name in content.column_names}


_READERS: dict[str, Callable[[Path], Cells]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column {quoted(twice)}: rename or remove them")
