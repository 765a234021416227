"""Tables of text, as Markdown and for the terminal."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]
"""Header and rows, all of one length."""


def markdown_table(rows: Rows) -> str:
    """The first row is the header; what would end a cell is escaped."""
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    rule = "|" + "---|" * len(rows[0])
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def text_table(rows: Rows) -> str:
    """Columns aligned with spaces."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def percent(share: float) -> str:
    """A share 0..1 in percent with two decimals, as the paper prints it."""
    return f"{100 * share:.2f}"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
