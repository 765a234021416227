"""Locks of objects, kept beside them: copying and pickling an object carries no lock."""

import os
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

_LOCKS: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
"""Object -> process id -> lock."""


def lock_of(owner: Any) -> Any:
    """The lock of an object in this process, the same for all threads.

    A thread may take it again while it holds it. A forked process has a lock of its own, which is
    free whatever its parent's threads held: they are not there to release it.
    """
    # Each `setdefault` is one step for other threads, so that all of them get the same lock.
    return _LOCKS.setdefault(owner, {}).setdefault(os.getpid(), RLock())
