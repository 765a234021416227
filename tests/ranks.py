"""One command in several processes, as a launcher starts it, without the cost of new interpreters.

Each process is a fork of this one. It may have a process-id namespace of its own, as the containers
of a cluster have: process ids are then the same in all of them.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from gtsvj_reward.cli import main

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
REFUSED = 77
"""Exit status of a process that cannot have a namespace of its own."""
PATIENCE = 120
"""Seconds after which a process is stopped."""

forked = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
"""Marks of a test that forks."""


def run_ranks(count, command, folder, *, own_ids=False):
    """Run `gtsvj` in `count` processes; one status and one log for each.

    Args:
        count: of processes.
        command: name and flags, for the number of a process.
        folder: for logs.
        own_ids: give each process an id namespace of its own; skips the test where that is not
            allowed.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    logs = [Path(folder, f"rank-{rank}.log") for rank in range(count)]

    def work(rank):
        words = [str(word) for word in command(rank)]
        return lambda: become(logs[rank], rank, count, port, words)

    status = run_forked([work(rank) for rank in range(count)], own_ids=own_ids)
    return status, [log.read_text() for log in logs]


def run_forked(works, *, own_ids=False):
    """Call each function in a process of its own; the exit status of each."""
    sys.stdout.flush()
    children = [fork(work, own_ids) for work in works]
    status = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if REFUSED in status:
        pytest.skip("the system gives this process no process-id namespace (unshare)")
    return status


def fork(work, own_ids):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)  # threads of the parent are not here
        signal.alarm(PATIENCE)
        if own_ids:
            enter_namespace()
        status = work() or 0
    except BaseException:  # noqa: BLE001  whatever it was, this process must not become pytest
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


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
    signal.alarm(PATIENCE)
    if os.getpid() != 1:
        raise RuntimeError("no namespace of its own: the test proves nothing")


def become(log, rank, count, port, words):
    """Be one of several processes of a launcher."""
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    logging.basicConfig(level=logging.WARNING, force=True)
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()  # that of the parent
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    return main(words)
