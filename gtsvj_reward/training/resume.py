"""Which checkpoint a run resumes from, and whether its settings are the same."""

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gtsvj_reward.backbones.lora import ADAPTER_FILE
from gtsvj_reward.files import open_safetensors
from gtsvj_reward.judge.checkpoint import HEAD_FILE, read_config

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
"""In a checkpoint: settings that a resumed run must share."""
STATE_FILE = "trainer_state.json"
OPTIMIZER_FILES = ("optimizer.pt", "scheduler.pt")
PREFIX = "checkpoint-"
MISSING = "not given"
"""In messages: a setting that this version, or that of the checkpoint, does not have."""

Settings = Mapping[str, Any]
"""Name -> value, for JSON."""
Found = Mapping[str, str | None]
"""Checkpoint -> what is wrong with it, None if it is whole."""


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a run, whole or not, the newest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if step_of(path.name) is not None]
    return sorted(found, key=lambda path: step_of(path.name) or 0, reverse=True)


def step_of(name: str) -> int | None:
    """The step of a checkpoint's name; None for the name of something else."""
    digits = name.removeprefix(PREFIX)
    return int(digits) if name.startswith(PREFIX) and digits.isdecimal() else None


def problem_of(checkpoint: Path, *, resumable: bool = True) -> str | None:
    """Why a run cannot resume from a checkpoint; None if it can.

    Args:
        checkpoint: folder.
        resumable: whether it must hold the state of the optimizer, and settings.
    """
    try:
        config = read_config(checkpoint)
        for name in (HEAD_FILE, *([ADAPTER_FILE] if config.lora_rank else [])):
            with open_safetensors(checkpoint / name):
                pass
        json.loads((checkpoint / STATE_FILE).read_text())["global_step"]
        if resumable:
            json.loads((checkpoint / SETTINGS_FILE).read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    if resumable:
        for name in OPTIMIZER_FILES:
            if not zipfile.is_zipfile(checkpoint / name):
                return f"{checkpoint / name} is missing or cut short"
    return None


def newest_whole(folder: Path, found: Sequence[tuple[str, Found]]) -> Path | None:
    """The newest checkpoint that all processes see whole; those left out are named.

    Args:
        folder: of the run.
        found: by each process: its host, and its checkpoints.

    Returns:
        Its folder, or None if no process has a whole one.

    Raises:
        ValueError: if some have one and others have none.
    """
    names = {name for _, own in found for name in own}
    apart = None
    for name in sorted(names, key=lambda name: step_of(name) or 0, reverse=True):
        problems = [own.get(name, f"no folder {folder / name}") for _, own in found]
        wrong = [rank for rank, problem in enumerate(problems) if problem is not None]
        if not wrong:
            return folder / name
        hosts = [f"{rank} ({found[rank][0]})" for rank in wrong]
        where = f" of processes {', '.join(hosts)}" if len(found) > 1 else ""
        problem = problems[wrong[0]]
        logger.warning("left out %s%s, which is not whole: %s", folder / name, where, problem)
        if len(wrong) < len(found):
            apart = apart or f"{name} is not there, or not whole, on processes {', '.join(hosts)}"
    if apart is not None:
        raise ValueError(
            f"cannot resume {folder}: {apart}. Put `output_dir` on a disk that all machines share, "
            "or copy the checkpoint to all of them"
        )
    return None


def settings_text(settings: Settings) -> str:
    """The text of `SETTINGS_FILE`."""
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def refuse_changes(checkpoint: Path, settings: Settings, defaults: Settings) -> None:
    """Reject settings that differ from those of a checkpoint.

    Args:
        checkpoint: folder.
        settings: of the run that is to resume.
        defaults: of settings that have one.
    """
    then = json.loads((checkpoint / SETTINGS_FILE).read_text())
    now, known = (json.loads(settings_text(values)) for values in (settings, defaults))
    changed = changes(then, now, known)
    if changed:
        raise ValueError(
            f"{checkpoint} was trained with other settings: {changed}. Give those of before to go "
            "on, or another `output_dir` to start anew"
        )


def changes(then: Settings, now: Settings, defaults: Settings) -> str:
    """Which settings differ, for a message; empty if none does.

    A setting that one side does not have, as it was added or removed since, has its default there.

    Args:
        then: of the checkpoint.
        now: of the run that is to resume, as JSON holds them.
        defaults: of settings that have one.
    """
    return "; ".join(
        f"`{name}` was {short(then, name)}, is now {short(now, name)}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name, defaults.get(name, MISSING)) != now.get(name, defaults.get(name, MISSING))
    )


def short(values: Settings, name: str) -> str:
    """A value for a message; of a hash, its beginning."""
    if name not in values:
        return MISSING
    value = values[name]
    text = json.dumps(value)
    return f"{text[1:13]}…" if isinstance(value, str) and len(value) == 64 else text
