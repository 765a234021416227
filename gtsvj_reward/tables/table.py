"""CSV, JSONL, JSON and parquet files as columns of cells."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gtsvj_reward.files import natural_order, write_text
from gtsvj_reward.tables.cells import Cells, as_text, first_few, quoted, read_cells


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table, and what messages call its rows."""

    name: str
    """As in the file."""
    table: str
    """The file."""
    rows: tuple[str, ...]
    """Identifier of each row."""
    cells: tuple[Any, ...]
    """Values as in the file: text in CSV, otherwise the JSON or parquet value."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """All cells of a file, or of the parquet files in a folder; at least one row."""

    path: Path
    """The file or folder."""
    rows: tuple[str, ...]
    """Identifier of each row: file name and number from 1, or the data set's id."""
    cells: Mapping[str, tuple[Any, ...]]
    """Column -> its cells, in the order of the file; None where JSON or parquet has no value."""

    def require(self, names: Iterable[str]) -> None:
        """Refuse a table that lacks a column."""
        missing = [name for name in names if name not in self.cells]
        if missing:
            raise ValueError(
                f"{self.path} has no column {quoted(missing)}, it has {quoted(self.cells)}: "
                "is it the right file, and of the right format?"
            )

    def column(self, name: str) -> Column:
        """A column by its name; see `require`."""
        self.require([name])
        return Column(name=name, table=str(self.path), rows=self.rows, cells=self.cells[name])

    def identified_by(self, name: str) -> "Table":
        """The same table with its rows called by the cells of a column.

        Raises:
            ValueError: for a missing column, an id that is not text or an integer, or one that
                comes twice; with the rows.
        """
        seen: dict[str, str] = {}
        unsound = []
        for row, cell in zip(self.rows, self.column(name).cells, strict=True):
            if not isinstance(cell, (str, int)) or isinstance(cell, bool) or cell == "":
                unsound.append(f"{row} has {cell!r}, which is not an id")
            elif str(cell) in seen:
                unsound.append(f"{row} has {cell!r} like {seen[str(cell)]}")
            else:
                seen[str(cell)] = row
        if unsound:
            raise ValueError(
                f"{self.path}: `{name}` must tell rows apart, {len(unsound)} of {len(self.rows)} "
                f"do not: {first_few(unsound)}. Give each row its own, or have rows numbered "
                "(`id_column=None`, or a file without that column)"
            )
        return replace(self, rows=tuple(seen))


def read_table(path: str | Path) -> Table:
    """Read a file by its suffix, or all parquet files directly in a folder in natural order.

    Empty lines of CSV and JSONL are not rows. Objects of JSON may lack a key: None stands there.

    Args:
        path: `.csv` (UTF-8, a header; between commas, or semicolons or tabs where the header has
            no others; beside semicolons decimal commas are read as points), `.tsv`, `.jsonl` (an
            object per line), `.json` (a list of objects), `.parquet`, or a folder of `.parquet`
            files.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: for another suffix, no rows, or invalid content, with its line or row.
        ImportError: for parquet without pyarrow (the extra `data`).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file or folder {path}")
    files = list_shards(path) if path.is_dir() else [path]
    rows: list[str] = []
    parts: list[Cells] = []
    for file in files:
        part = read_cells(file)
        if part.keys() != (parts or [part])[0].keys():
            raise ValueError(
                f"{file} has the columns {quoted(part)}, {files[0]} has {quoted(parts[0])}: "
                "keep one folder per table"
            )
        count = len(next(iter(part.values()), ()))
        rows += [f"{file.name} row {number}" for number in range(1, count + 1)]
        parts.append(part)
    if not rows:
        raise ValueError(f"{path} has no rows")
    cells = {name: tuple(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
    return Table(path=path, rows=tuple(rows), cells=cells)


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as `.csv` or `.jsonl`, in one step.

    In CSV a text that a spreadsheet would run as a formula (it begins with `=`, `+`, `-` or `@` and
    is not a number) gets a leading apostrophe, which `read_table` removes.

    Args:
        path: its suffix sets the format.
        columns: names, all different.
        rows: a cell for each column: text, a number, or None for an empty cell.

    Raises:
        ValueError: for another suffix, or names that are not all different.
    """
    path = Path(path)
    if len(set(columns)) != len(columns):
        raise ValueError(f"columns must have different names, got {quoted(columns)}")
    if path.suffix == ".csv":
        text = io.StringIO()
        csv.writer(text).writerows([as_text(cell) for cell in row] for row in [columns, *rows])
        write_text(path, text.getvalue())
    elif path.suffix == ".jsonl":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in objects]
        write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        raise ValueError(f"expected a path ending in .csv or .jsonl, got {path}")


def list_shards(folder: Path) -> list[Path]:
    """The parquet files directly in a folder, in natural order.

    Raises:
        ValueError: if there are none, or files called `<split>-<n>-of-<count>.parquet`, as model
            hubs call them, are not all of one split or not all there.
    """
    files = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")]
    if not files:
        raise ValueError(f"no parquet files (.parquet) directly in {folder}")
    matches = [_SHARD.fullmatch(path.name) for path in files]
    named = {(match["split"], int(match["count"])) for match in matches if match}
    if len(named) > 1 or (named and not all(matches)):
        raise ValueError(
            f"{folder} holds more than one table: {', '.join(sorted(path.name for path in files))};"
            " pass one file, or keep one folder per split"
        )
    for split, count in named:
        if len(files) != count:
            raise ValueError(
                f"{folder} holds {len(files)} of the {count} files of `{split}`: fetch the others"
            )
    return sorted(files, key=natural_order)


_SHARD = re.compile(r"(?P<split>.+)-\d+-of-(?P<count>\d+)\.parquet")
