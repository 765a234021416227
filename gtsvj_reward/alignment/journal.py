"""The log of a run, one JSON object per line."""

import json
from pathlib import Path

from gtsvj_reward.files import whole_lines, write_text

REFITTED = "refit_clips"
"""What the first entry of a refit has."""


class Journal:
    """`metrics.jsonl` in a run's folder.

    Args:
        folder: of the run.
        writes: whether this process writes the file; all processes keep the entries.
    """

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self.path = folder / "metrics.jsonl"
        self.writes = writes
        self.entries: list[dict[str, float]] = []

    def add(self, entry: dict[str, float]) -> None:
        """Append an entry with its `iteration`."""
        self.entries.append(entry)
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as opened:
                opened.write(json.dumps(entry) + "\n")

    def rewind(self, iteration: int, *, refit: bool = False) -> None:
        """Drop entries after an iteration, which will run again. 0 keeps nothing.

        Args:
            iteration: the last one that is done.
            refit: whether the refit after it will run again, too.
        """
        self.entries = [
            entry for entry in read_journal(self.path) if 0 < iteration >= entry["iteration"]
        ]
        if refit:
            again = [
                index
                for index, entry in enumerate(self.entries)
                if entry["iteration"] == iteration and REFITTED in entry
            ]
            del self.entries[min(again, default=len(self.entries)) :]
        if self.writes and self.path.exists():
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in self.entries))


def read_journal(path: Path) -> list[dict[str, float]]:
    """Entries of a journal, none if there is no file; an incomplete last line is dropped.

    Raises:
        ValueError: for a damaged line before it.
    """
    lines = whole_lines(path) if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged before its last line: {error}") from error


def latest(entries: list[dict[str, float]]) -> dict[str, str]:
    """Values for the progress bar: the last reward and eval metrics."""
    found: dict[str, float] = {}
    for entry in entries:
        found |= {
            name.removeprefix("eval/"): value
            for name, value in entry.items()
            if name in ("reward", "proxy") or name.startswith("eval/")
        }
    return {name: f"{value:.3g}" for name, value in found.items()}
