"""What is on disk survives; what was not finished is cut off."""

import json
import os
import signal
from functools import partial
from itertools import count
from threading import Event, Thread

import pytest

from gtsvj_reward.labelling.journal import JOURNAL, Journal, read_events
from gtsvj_reward.labelling.labels import Labels
from gtsvj_reward.locks import FolderInUseError, folder_lock
from tests.holder import holder
from tests.ranks import on_unix, run_apart

SHOWN = {
    "task": "compare", "clips": ["a", "b"], "prompt": None, "choice": "random",
    "predicted": None, "labels": 0,
}  # fmt: skip


def shown(journal, ticket, rater="ann", **changes):
    journal.append("shown", ticket=ticket, rater=rater, **{**SHOWN, **changes})


def test_an_unfinished_line_is_cut_off_and_the_next_event_is_whole(tmp_path):
    journal = Journal(tmp_path)
    shown(journal, "one")
    journal.close()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"event": "answer", "tick')
    again = Journal(tmp_path)
    assert again.torn == 25
    again.append("answer", ticket="one", label=1)
    again.close()
    assert [event["event"] for event in read_events(tmp_path / JOURNAL)] == ["shown", "answer"]


def write_until_killed(folder, said):
    """Write events and say so; another thread kills the process after 50 of them, at any point."""
    enough = Event()

    def kill():
        enough.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=kill).start()
    journal = Journal(folder)
    with said.open("ab", buffering=0) as file:
        for number in count():
            journal.append("fit", n=number)
            file.write(b"%d\n" % number)
            if number == 50:
                enough.set()


@on_unix
def test_a_killed_process_has_written_all_that_it_said(tmp_path):
    said = tmp_path / "said"
    folder = tmp_path / "labels"
    assert run_apart([partial(write_until_killed, folder, said)]) == [-signal.SIGKILL]
    told = said.read_bytes().splitlines()
    journal = Journal(folder)
    numbers = [event["n"] for event in journal.events]
    journal.close()
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= len(told) > 50


def test_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(FolderInUseError, match="this process writes to"):
        Journal(tmp_path)
    with holder(tmp_path / "other"), pytest.raises(FolderInUseError, match="in use by process"):
        Journal(tmp_path / "other")
    journal.append("fit", n=1)  # the first one has it still
    journal.close()
    Journal(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [JOURNAL]


def test_a_damaged_journal_is_let_go(tmp_path):
    (tmp_path / JOURNAL).write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is not an event"):
        Journal(tmp_path)
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    "line", ["nothing", "[]", "{}", '{"event": "sold"}', '{"event": "start", "version": 2}']
)
def test_lines_that_are_no_events_are_named(tmp_path, line):
    (tmp_path / JOURNAL).write_text(json.dumps({"event": "fit", "time": 0}) + f"\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        Journal(tmp_path)


def test_undo_is_an_event_and_the_task_comes_back_before_later_ones(tmp_path):
    journal = Journal(tmp_path)
    shown(journal, "one")
    journal.append("answer", ticket="one", label=1)
    shown(journal, "two")
    journal.append("undo", ticket="one")
    labels = Labels(journal.events)
    assert labels.answers == {}
    assert labels.current("ann", "compare").ticket == "one"
    labels.apply(journal.append("answer", ticket="one", label=0))
    assert labels.current("ann", "compare").ticket == "two"
    assert labels.answers["one"].label == 0
    assert labels.undoable("ann", "compare").ticket == "one"
    assert labels.undoable("bob", "compare") is None
    journal.close()
    assert vars(Labels(read_events(journal.path))) == vars(labels)


@pytest.mark.parametrize("event", ["answer", "undo"])
def test_a_journal_that_does_not_add_up_is_refused(event):
    with pytest.raises(ValueError, match="contradicts earlier events"):
        Labels([{"event": event, "ticket": "one", "time": 0}])


def test_an_event_is_on_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor, real=os.fsync):
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    journal = Journal(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    for number in range(3):
        journal.append("fit", n=number)
        assert synced[number:] == [(tmp_path / JOURNAL).stat().st_size]
    journal.close()
