"""The event log, as lines of JSON that are on disk before they are confirmed.

`labels.jsonl` is only ever appended to. An undone answer stays, followed by an undo event. An
incomplete last line of a killed process was never confirmed, and is removed when the file is opened
again.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gtsvj_reward.files import sync, whole_lines
from gtsvj_reward.locks import folder_lock

JOURNAL = "labels.jsonl"
VERSION = 1
EVENTS = ("start", "shown", "answer", "skip", "undo", "fit")
"""start: the page was opened with these settings. shown: a task, with the judge's prediction.
answer, skip: of a task. undo: an answer or skip is undone. fit: the judge was fitted."""

Event = Mapping[str, Any]


def read_events(path: Path) -> list[Event]:
    """All whole events of a journal.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a line that is no event, or of another version, with its number.
    """
    events = []
    for number, line in enumerate(whole_lines(path), 1):
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} line {number} is not an event of a label journal: {line[:80]!r}"
            ) from error
        if kind not in EVENTS or (kind == "start" and event.get("version") != VERSION):
            raise ValueError(
                f"{path} line {number} has the event {kind!r} of version {event.get('version')}, "
                f"expected version {VERSION} of {EVENTS}: install the gtsvj_reward that wrote it"
            )
        events.append(event)
    return events


class Journal:
    """The journal of a folder, held open once at a time.

    Attributes:
        events: all of it, oldest first.
        torn: bytes of an unfinished line that were cut off.

    Args:
        folder: made if it is not there.

    Raises:
        FolderInUseError: if it is open already, or another run writes to the folder.
        ValueError: if it is not a journal.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        with ExitStack() as stack:
            stack.enter_context(folder_lock(folder, again=False))
            self.file = stack.enter_context(self.path.open("ab"))
            self.events = read_events(self.path)
            whole = sum(len(line) for line in whole_lines(self.path))
            self.torn = self.file.tell() - whole
            if self.torn:
                self.file.truncate(whole)
            sync(folder)
            self.held = stack.pop_all()

    def append(self, kind: str, **fields: Any) -> Event:
        """Write an event; it is on disk when this returns."""
        event = {"event": kind, "time": round(time.time(), 3), **fields}
        self.file.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.events.append(event)
        return event

    def close(self) -> None:
        """Let others open it."""
        self.held.close()
