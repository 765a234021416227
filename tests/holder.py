"""Another run that writes to a folder, as far as locks go."""

import subprocess
import sys
from contextlib import contextmanager

HOLD = """
import sys
from gtsvj_reward.locks import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder):
    """A process that holds the lock of a folder until its input ends; killed at the end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()
