"""Checkpoints of an alignment run: safetensors and JSON, written whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtsvj_reward.files import read_safetensors, write_safetensors, write_text

PREFIX = "iteration-"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration is."""
    return folder / f"{PREFIX}{iteration:06d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None."""
    found = sorted(path for path in folder.glob(f"{PREFIX}*") if (path / "state.json").exists())
    return found[-1] if found else None


def save_checkpoint(
    folder: Path,
    iteration: int,
    *,
    adapter: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    The folder appears under its name only when everything in it is on disk.

    Args:
        folder: of all checkpoints.
        iteration: how many iterations are done.
        adapter: the policy's.
        parameters: what the optimizer trains, by name.
        optimizer: an Adam.
        state: anything else, for JSON; `iteration` is added.
        keep: how many checkpoints to leave.
    """
    path = checkpoint_path(folder, iteration)
    part = folder / f".{path.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    write_safetensors(part / "adapter.safetensors", adapter, {"format": "pt"})
    moments = optimizer_moments(optimizer, parameters)
    write_safetensors(part / "optimizer.safetensors", moments, {"format": "pt"})
    write_text(part / "state.json", json.dumps({**state, "iteration": iteration}, indent=1))
    shutil.rmtree(path, ignore_errors=True)
    part.rename(path)
    for old in sorted(folder.glob(f"{PREFIX}*"))[:-keep]:
        shutil.rmtree(old)
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Adapter, optimizer moments and the rest of a checkpoint."""
    adapter, _ = read_safetensors(path / "adapter.safetensors")
    moments, _ = read_safetensors(path / "optimizer.safetensors")
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return adapter, moments, state


def optimizer_moments(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimizer's tensors as `<parameter>/<moment>`; none before its first step."""
    return {
        f"{name}/{moment}": optimizer.state[parameter][moment]
        for name, parameter in parameters.items()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def load_moments(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, nn.Parameter],
    moments: dict[str, Tensor],
) -> None:
    """Put back what `optimizer_moments` gave.

    Raises:
        ValueError: if they are of other parameters.
    """
    known = {f"{name}/{moment}" for name in parameters for moment in MOMENTS}
    if moments and moments.keys() != known:
        odd = sorted(known ^ moments.keys())
        raise ValueError(f"optimizer state of other parameters: {odd[:3]} ({len(odd)} names)")
    for key, value in moments.items():
        name, moment = key.rsplit("/", 1)
        parameter = parameters[name]
        # Adam keeps its count of steps on the CPU.
        place = value if moment == "step" else value.to(parameter.device)
        optimizer.state[parameter][moment] = place
