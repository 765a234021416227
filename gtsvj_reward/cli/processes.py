"""The processes of a command that may run in several."""

import os
from datetime import timedelta
from typing import Any

PATIENCE = timedelta(days=7)
"""How long processes wait for the slowest one."""


def processes(device: str | None) -> Any:
    """The processes of this run as accelerate sees them.

    Raises:
        ValueError: if a launcher started several, but accelerate sees another number.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = device == "cpu" or (device is None and parse_flag_from_env("ACCELERATE_USE_CPU"))
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != state.num_processes:
        raise ValueError(
            f"{launched} processes were launched, but accelerate sees {state.num_processes}, on "
            f"{state.device}: without an accelerator, pass --device cpu"
        )
    return state
