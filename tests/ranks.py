"""Work in processes that are clean when they begin, and `gtsvj` in several, as launched.

A fork of pytest would have its locks and none of its threads (of servers, of OpenMP), and work of
torch may wait for them for ever. So a server without threads imports the package once, and each
process is a fork of that. What is to be called must be picklable: functions of modules, `partial`.

A process may have a process-id namespace of its own, as the containers of a cluster have: process
ids are then the same in all of them.
"""

import ctypes
import faulthandler
import logging
import multiprocessing
import os
import socket
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import pytest

from gtsvj_reward.cli import main

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
REFUSED = 77
"""Exit status of a process that cannot have a namespace of its own."""
PATIENCE = 120
"""Seconds after which a process says where it is and ends."""

on_unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix has a server of forks")
"""Mark of a test that starts processes here."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
IMPORTED_ONCE = ["gtsvj_reward.training", "tests.tiny"]


def run_ranks(count, command, folder, *, call=main, own_ids=False, patience=PATIENCE):
    """Run `gtsvj` in `count` processes; one status and one log for each.

    Args:
        count: of processes.
        command: name and flags, for the number of a process.
        folder: for logs.
        call: what is called with the words of the command.
        own_ids: give each process an id namespace of its own; skips the test where that is not
            allowed.
        patience: see `run_apart`.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    logs = [Path(folder, f"rank-{rank}.log") for rank in range(count)]
    words = [[str(word) for word in command(rank)] for rank in range(count)]
    works = [
        partial(become, logs[rank], rank, count, port, partial(call, words[rank]))
        for rank in range(count)
    ]
    status = run_apart(works, own_ids=own_ids, patience=patience)
    return status, [log.read_text() for log in logs]


def run_apart(works, *, own_ids=False, patience=PATIENCE):
    """Call each function in a process of its own; the exit status of each, 0 where it returned.

    A process that does not end in time writes where it is to the captured errors and ends with 1.
    """
    server = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ONE_THREAD.items():
            patch.setenv(name, value)
        server.set_forkserver_preload([__name__, *IMPORTED_ONCE])
        place = (Path.cwd(), dict(os.environ))
        children = [
            server.Process(target=begin, args=(work, place, own_ids, patience)) for work in works
        ]
        for child in children:
            child.start()
    end = time.monotonic() + patience + 60  # the first waits for the imports
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    status = [child.exitcode for child in children]
    for child in children:
        child.kill()
    if REFUSED in status:
        pytest.skip("the system gives this process no process-id namespace (unshare)")
    return status


def begin(work, place, own_ids, patience):
    """In the new process: go where the test is, and call the function."""
    if sys.platform == "linux":
        threads = len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))
        if threads != 1:
            raise RuntimeError(f"the server of forks has {threads} threads: it is not clean")
    folder, environment = place
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    if own_ids:
        enter_namespace()
    faulthandler.dump_traceback_later(patience, exit=True)
    status = 1
    try:
        status = work() or 0
    except BaseException:  # noqa: BLE001  also what `gtsvj` says of its flags
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # whatever is left of process groups


def enter_namespace():
    """Go on as process 1 of a new namespace; what was this process waits for it."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWPID | (CLONE_NEWUSER if user else 0)):
        os._exit(REFUSED)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    child = os.fork()
    if child:
        os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    if os.getpid() != 1:
        raise RuntimeError("no namespace of its own: the test proves nothing")


def become(log, rank, count, port, work):
    """Be one of several processes of a launcher."""
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    logging.basicConfig(level=logging.WARNING, force=True)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    return work()
