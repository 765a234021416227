"""The token of a folder of labels, which stays the same so that open pages keep working."""

import os
import secrets
from pathlib import Path

from gtsvj_reward.serving.access import read_token

TOKEN = ".token"
"""Name of the file; only its owner can read it."""


def token_of(out: Path, file: Path | None) -> str:
    """The token of `file`, or of `GTSVJ_SERVE_TOKEN`, or that of a folder, made at first use.

    Raises:
        ValueError: for one that is empty, or has characters that no header can carry.
    """
    given = read_token(file)
    if given is not None:
        return given
    out.mkdir(parents=True, exist_ok=True)
    path = out / TOKEN
    if not path.exists():
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w") as written:
            written.write(secrets.token_urlsafe(24) + "\n")
    kept = read_token(path)
    if kept is None:
        raise ValueError(f"{path} holds no token: delete it")
    return kept
