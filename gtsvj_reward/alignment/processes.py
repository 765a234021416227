"""Clips, gradients and metrics of several processes."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

Metrics = Mapping[str, float | Float[Tensor, "..."]]
"""Name -> a number, or numbers of several clips."""


def check_share(count: int, processes: int, what: str) -> None:
    """Reject a count that processes cannot share evenly."""
    if count % processes:
        raise ValueError(f"{processes} processes cannot share {count} {what} evenly")


def own_share(accelerator: Accelerator, count: int) -> slice:
    """This process's share of `count` items, which `check_share` has accepted."""
    size = count // accelerator.num_processes
    first = size * accelerator.process_index
    return slice(first, first + size)


def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Mean over processes, in one message."""
    if accelerator.num_processes == 1:
        return
    held = list(parameters)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
    flat = accelerator.reduce(torch.cat([g.flatten() for g in grads]), "mean")
    for parameter, part in zip(held, flat.split([p.numel() for p in held]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def mean_metrics(accelerator: Accelerator, metrics: Sequence[Metrics]) -> dict[str, float]:
    """Mean of all numbers of each name, of all processes.

    Args:
        accelerator: of this process.
        metrics: of any parts of an iteration; every process has the same names.
    """
    found: dict[str, list[Tensor]] = {}
    for entry in metrics:
        for name, values in entry.items():
            numbers = torch.as_tensor(values, dtype=torch.float32, device=accelerator.device)
            found.setdefault(name, []).append(numbers.flatten())
    joined = [torch.cat(parts) for parts in found.values()]
    # (name, 2): sum and count
    sums = torch.stack([torch.stack([v.sum(), v.new_tensor(len(v))]) for v in joined])
    totals = accelerator.reduce(sums, "sum")
    return dict(zip(found, (totals[:, 0] / totals[:, 1]).tolist(), strict=True))
