"""Checkpoints of an alignment run: safetensors and JSON, written whole or not at all."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gtsvj_reward.alignment.average import AdapterAverage
from gtsvj_reward.alignment.policy import Policy
from gtsvj_reward.files import (
    read_safetensors,
    remove_folder,
    remove_parts,
    whole_folder,
    write_safetensors,
    write_text,
)
from gtsvj_reward.training.resume import changes

LATEST = "lora"
"""Folder of the last checkpoint's adapter, for diffusers."""
PREFIX = "iteration-"
AVERAGE = "average.safetensors"
"""In a checkpoint: the average of the adapter."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@runtime_checkable
class Stateful(Protocol):
    """An object whose state checkpoints store."""

    def state(self) -> Any:
        """What `load` takes, for JSON."""

    def load(self, state: Any) -> None:
        """Restore a state."""


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of a run, in `checkpoints/` of its folder."""

    folder: Path
    """Of the run."""
    settings: dict[str, Any]
    """The settings that decide what iterations do."""
    policy: Policy
    optimizer: torch.optim.Optimizer
    guards: Stateful
    extra: Mapping[str, Stateful]
    """Other state of a script, by name."""
    average: AdapterAverage | None = None
    """EMA of the adapter; if there is one, diffusers gets it instead of the adapter."""

    def save(self, iteration: int, stopped: str | None) -> None:
        """Write a checkpoint, and the adapter, or its average, for diffusers."""
        with self.average.in_place() if self.average else nullcontext():
            self.policy.save(self.folder / LATEST)
        save_checkpoint(
            self.folder / "checkpoints",
            iteration,
            adapter=self.policy.adapter(),
            parameters=self.policy.parameters(),
            optimizer=self.optimizer,
            state={
                "settings": self.settings,
                "guards": self.guards.state(),
                "stopped": stopped,
                "extra": {name: part.state() for name, part in self.extra.items()},
            },
            average=None if self.average is None else self.average.values,
        )

    def restore(self) -> tuple[int, str | None]:
        """Resume from the newest checkpoint; iterations done, and why the run was stopped.

        Raises:
            ValueError: if it is of a run with other settings.
        """
        path = latest_checkpoint(self.folder / "checkpoints")
        if path is None:
            return 0, None
        adapter, moments, state = load_checkpoint(path)
        changed = changes(state["settings"], self.settings, {})
        if changed:
            raise ValueError(
                f"{self.folder} holds a run with other settings: {changed}. Choose another "
                "`output_dir`, or give the settings of that run"
            )
        self.policy.load_adapter(adapter)
        load_moments(self.optimizer, self.policy.parameters(), moments)
        if self.average is not None:
            self.average.load(read_safetensors(path / AVERAGE)[0])
        self.guards.load(state["guards"])
        for name, part in self.extra.items():
            part.load(state["extra"][name])
        return int(state["iteration"]), state["stopped"]


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
    average: dict[str, Tensor] | None = None,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    The folder gets its name only after all of its files are on disk.

    Args:
        folder: of all checkpoints.
        iteration: number of iterations done.
        adapter: the policy's.
        parameters: what the optimizer trains, by name.
        optimizer: an Adam.
        state: the rest, for JSON; `iteration` is added.
        average: of the adapter, by the names of its parameters; None: there is none.
        keep: number of checkpoints to keep.
    """
    path = checkpoint_path(folder, iteration)
    remove_parts(path)
    with whole_folder(path) as part:
        write_safetensors(part / "adapter.safetensors", adapter, {"format": "pt"})
        if average is not None:
            write_safetensors(part / AVERAGE, average, {"format": "pt"})
        moments = optimizer_moments(optimizer, parameters)
        write_safetensors(part / "optimizer.safetensors", moments, {"format": "pt"})
        write_text(part / "state.json", json.dumps({**state, "iteration": iteration}, indent=1))
    for old in sorted(folder.glob(f"{PREFIX}*"))[:-keep]:
        remove_folder(old)
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
    """Restore what `optimizer_moments` returned.

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
