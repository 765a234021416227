"""The exponential moving average (EMA) of an adapter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AdapterAverage:
    """ā ← d ā + (1 - d) a after each update, as in Flow-GRPO; it starts at the adapter itself.

    Args:
        parameters: of the adapter, by name.
        decay: d, 0 <= d < 1; at 0 the average is the adapter itself.

    Raises:
        ValueError: for a decay out of its range.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        check_decay(decay)
        self.parameters, self.decay = dict(parameters), decay
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Include the adapter after an update."""
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the average in place of the adapter within a `with` block."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.fill(self.values)
        try:
            yield
        finally:
            self.fill(own)

    @torch.no_grad()
    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Write values into the adapter."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Restore the `values` of a checkpoint.

        Raises:
            ValueError: if they are of other parameters.
        """
        if values.keys() != self.values.keys():
            odd = sorted(values.keys() ^ self.values.keys())
            raise ValueError(f"an average of other parameters: {odd[:3]} ({len(odd)} names)")
        for name, value in values.items():
            self.values[name].copy_(value)


def check_decay(decay: float) -> None:
    """Reject a decay outside [0, 1)."""
    if not 0 <= decay < 1:
        raise ValueError(f"`ema_decay` must be in [0, 1), 0 for no average, got {decay}")
