"""`gtsvj serve` in a process of its own."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

from gtsvj_reward.judge import save_judge
from tests.tiny import tiny_judge, tiny_transformer


def saved_judge(folder, **changes):
    """A checkpoint with its base model, in `folder`."""
    tiny_transformer().save_pretrained(folder / "base")
    judge = tiny_judge(base_model=str(folder / "base"), **changes)
    save_judge(judge, folder / "judge")
    return folder / "judge"


@contextmanager
def command(*words, environment=None, announced=r"on http://[^ ]*:(\d+)", files=None, log=None):
    """A running command and its port; killed at the end if it is still there.

    `files` is the most that it may have open, `log` the file for its errors.
    """

    def prepare():
        # A runner in the background of a shell ignores Ctrl-C, and its children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    process = subprocess.Popen(
        [sys.executable, "-m", "gtsvj_reward.cli", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if log is None else log.open("w"),
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        preexec_fn=prepare,
    )
    try:
        said = ""
        while not (found := re.search(announced, said)):
            line = process.stdout.readline()
            assert line, f"the server did not start: {said}"
            said += line
        # Read on, or a process that says much waits for ever.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
