"""Locks of objects, which copies do not inherit, and of folders that a run writes to."""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from threading import RLock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

_LOCKS: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
"""Object -> process id -> lock."""


def lock_of(owner: Any) -> Any:
    """The lock of an object in this process, the same for all threads.

    A thread may take it again while it holds it. A forked process has its own free lock, since its
    parent's threads could not release one.
    """
    # Each `setdefault` is one step for other threads, so that all of them get the same lock.
    return _LOCKS.setdefault(owner, {}).setdefault(os.getpid(), RLock())


LOCK_FILE = ".gtsvj-lock"
"""In a folder that a run writes to: which run that is."""


class FolderInUseError(OSError):
    """A folder that another run writes to."""


_HELD: dict[tuple[int, Path], list[int]] = {}
"""Process and folder -> thread that holds it, and how often it took it."""


@contextmanager
def folder_lock(folder: str | Path, *, again: bool = True) -> Iterator[None]:
    """Keep other runs out of a folder, which is made if it is not there.

    The operating system holds the lock and releases it with the process, however that ends, also
    on a network disk that has locks. A thread may take it again while it holds it.

    Args:
        folder: what is written to.
        again: whether the same thread may; False: a second lock by this thread is an error.

    Raises:
        FolderInUseError: if another run holds it, with that run's host and process id.
    """
    key = (os.getpid(), Path(folder).resolve())
    with lock_of(folder_lock):
        thread, count = _HELD.get(key, [get_ident(), 0])
        if thread != get_ident():
            raise FolderInUseError(f"another thread of this process writes to {folder}")
        if count and not again:
            raise FolderInUseError(f"this process writes to {folder} already: close it there first")
        _HELD[key] = [thread, count + 1]
    try:
        with ExitStack() as stack:
            if not count:
                stack.enter_context(_locked(Path(folder)))
            yield
    finally:
        with lock_of(folder_lock):
            _HELD[key][1] -= 1
            if not _HELD[key][1]:
                del _HELD[key]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock itself, once per process: a second `lockf` of one process would not wait."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK_FILE
    descriptor = _lock_file(file)
    try:
        before = os.pread(descriptor, 1 << 16, 0)
        if before:
            logger.warning("%s: left by %s; taken over", file, _who(before))
        own = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(own).encode(), 0)
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _lock_file(file: Path) -> int:
    """Open and lock a file; retry if its previous holder removes it in between."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, file)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> None:
    if sys.platform == "win32":
        logger.warning("no file locks here: make sure no other run writes to %s", file.parent)
        return
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise FolderInUseError(
            f"{file.parent} is in use by {_who(os.pread(descriptor, 1 << 16, 0))}: wait until it "
            "ends, stop it, or choose another folder"
        ) from error
    except OSError as error:
        logger.warning(
            "the disk of %s has no locks (%s): make sure no other run writes to it",
            file.parent,
            error,
        )


def _who(content: bytes) -> str:
    try:
        known = json.loads(content)
        return f"process {known['pid']} on {known['host']}, running since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "another run"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
