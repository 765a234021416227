"""Readers of the plain formats: your own comparisons and ratings, CSV, JSONL, JSON or parquet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gtsvj_reward.annotations.aspects import AspectScale, chosen_names
from gtsvj_reward.annotations.columns import is_nameless, scores, word
from gtsvj_reward.annotations.layout import ComparisonLayout, ratings_of
from gtsvj_reward.annotations.records import Comparisons, Ratings
from gtsvj_reward.tables import Column, Table, quoted, read_table

_OVERALL = "overall"
RATING_COLUMNS = ("row", "video", "prompt", "model", "group")
"""Of the plain format of ratings; others are aspects."""
_WORDS: dict[str, int | None] = {
    **dict.fromkeys(("1", "a"), 1),
    **dict.fromkeys(("-1", "b"), -1),
    **dict.fromkeys(("0", "same", "tie", "equal", "draw"), 0),
    "": None,
}


def read_comparisons(path: str | Path, *, labels: Mapping[str, str] | None = None) -> Comparisons:
    """Read comparisons in the plain format.

    Columns: `video_a`, `video_b`, and `label` (the dimension `overall`) or `label_<dimension>`;
    where there are any, `prompt`, `model_a`, `model_b`, `group`, and `row`, which identifies a row.
    Others are not read. A label is 1 or A (A is better), -1 or B, 0, same, tie, equal or draw; an
    empty cell is no label, which is counted. If there is 0 but neither -1 nor B, it may mean B:
    this is an error unless `labels` says what it means.

    Instead of a label a row may have `probability` or `probability_<dimension>`, from 0 to 1: that
    A is better, such as its share of votes. `weight` is how many comparisons the row counts as.

    Args:
        path: what to read.
        labels: what other words mean, or 0 and 1: word -> A, B or tie, e.g. `{"0": "B"}`.

    Raises:
        ValueError: for a missing column, another label, zeros of unknown meaning, a probability
            outside 0..1 or beside a label, a weight that is not above 0, a repeated row id, or a
            video compared with itself; with rows and counts.
    """
    table = _table(path)
    own = _meanings(labels or {})
    columns, shares = _by_dimension(table, "label"), _by_dimension(table, "probability")
    if not columns and not shares:
        columns[_OVERALL] = "label"
    _check_zeros([table.column(name) for name in columns.values() if name in table.cells], own)
    layout = ComparisonLayout(
        video_a="video_a",
        video_b="video_b",
        labels=columns,
        words=_WORDS | own,
        probabilities=shares,
        hint="; define others with --labels, for example `--labels 2=B 0.5=tie` "
        '(in Python `labels={"2": "B"}`)',
        **_where_there(table, "weight", "prompt", "model_a", "model_b", "group"),
    )
    return layout.read(table, table.path.name)


def read_ratings(
    path: str | Path,
    *,
    scales: Sequence[AspectScale] | None = None,
    aspects: Sequence[str] | None = None,
) -> Ratings:
    """Read ratings in the plain format.

    Columns: `video`, and one for each aspect, with numbers; where there are any, `prompt`, `model`,
    `group` and `row`, which identifies a row. An empty cell is no label, which is counted.

    Args:
        path: what to read.
        scales: the aspects to read and their ranges; None: every other column is an aspect, on
            any scale.
        aspects: without `scales`, the columns that are aspects; others are not read.

    Raises:
        ValueError: for a missing column, a cell that is not a finite number or out of range, or a
            row id that comes twice; with rows and counts.
    """
    table = _table(path)
    others = tuple(name for name in table.cells if name not in RATING_COLUMNS)
    nameless = [name for name in others if is_nameless(name)]
    if scales is None and aspects is None and nameless:
        raise ValueError(
            f"{table.path} has a column without a name ({quoted(nameless)}), which may or may not "
            "be an aspect: name it, or write the file without it (pandas: `index=False`)"
        )
    wanted = others if aspects is None else chosen_names(others, aspects, table.path.name)
    ranges = dict.fromkeys(wanted) if scales is None else {s.name: s for s in scales}
    if not ranges:
        raise ValueError(
            f"{table.path} has no aspects: expected a column for each besides "
            f"{quoted(RATING_COLUMNS)}"
        )
    table.require(["video", *ranges])
    labels = {name: scores(table.column(name), scale) for name, scale in ranges.items()}
    return ratings_of(
        table,
        table.path.name,
        labels,
        video="video",
        skipped={f"`{name}` is empty": cells.count(None) for name, cells in labels.items()},
        scales=() if scales is None else scales,
        **_where_there(table, "prompt", "model", "group"),
    )


def _by_dimension(table: Table, kind: str) -> dict[str, str]:
    """Dimension -> its column, `<kind>_<dimension>`; `<kind>` is `overall`, which comes last.

    Raises:
        ValueError: if `overall` has two columns.
    """
    start = f"{kind}_"
    columns = {name.removeprefix(start): name for name in table.cells if name.startswith(start)}
    if kind in table.cells and _OVERALL in columns:
        raise ValueError(
            f"{table.path} has `{kind}` and `{start}{_OVERALL}`, which mean the same: keep one"
        )
    if kind in table.cells:
        columns[_OVERALL] = kind
    elif _OVERALL in columns:
        columns[_OVERALL] = columns.pop(_OVERALL)
    return columns


def _meanings(labels: Mapping[str, str]) -> dict[str, int | None]:
    """Word -> +1, -1 or 0.

    Raises:
        ValueError: for a meaning other than A, B and tie.
    """
    known: dict[str, int | None] = {"a": 1, "b": -1, "tie": 0}
    wrong = [f"{text}={meaning}" for text, meaning in labels.items() if word(meaning) not in known]
    if wrong:
        raise ValueError(f"labels can mean A, B or tie, got {', '.join(wrong)}")
    return {word(text): known[word(meaning)] for text, meaning in labels.items()}


def _check_zeros(columns: Sequence[Column], own: Mapping[str, int | None]) -> None:
    """Reject files with 1 and 0 in which 0 may mean that B is better."""
    counts = Counter(word(cell) for column in columns for cell in column.cells)
    decided = "0" in own or any({**_WORDS, **own}.get(text) == -1 for text in counts)
    if counts["0"] and not decided:
        raise ValueError(
            f"{columns[0].table}: {quoted(column.name for column in columns)} has 0 "
            f"({counts['0']} times) and 1 ({counts['1']} times) but neither -1 nor B, so that 0 "
            "may mean B or a tie. Say which with `--labels 0=B` or `--labels 0=tie` (in Python "
            '`labels={"0": "B"}`), or write A, B and tie in the file'
        )


def _table(path: str | Path) -> Table:
    table = read_table(path)
    return table.identified_by("row") if "row" in table.cells else table


def _where_there(table: Table, *names: str) -> dict[str, str | None]:
    """The columns by these names, None for one that the table lacks."""
    return {name: name if name in table.cells else None for name in names}
