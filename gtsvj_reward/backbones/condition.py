"""What conditions of a batch of clips have in common, be they prompts or images."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

Own = TypeVar("Own", bound="Condition")


class Condition:
    """A dataclass of tensors with a row per clip, and of values that hold for all clips."""

    what: ClassVar[str]
    """What messages call its rows."""

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, by field; those that a family lacks are left out."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def each(self: Own, change: Callable[[Tensor], Tensor]) -> Own:
        """The condition with every tensor changed alike."""
        changed = {name: change(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)  # type: ignore[type-var]

    def rows(self: Own, index: Tensor) -> Own:
        """The condition of some clips of the batch, by integer index."""
        return self.each(lambda tensor: tensor[index])

    def to(self: Own, device: torch.device) -> Own:
        """The condition on a device."""
        return self.each(lambda tensor: tensor.to(device))

    @classmethod
    def cat(cls: type[Own], conditions: Sequence[Own]) -> Own:
        """Conditions concatenated along the batch.

        Raises:
            ValueError: for tensors of different shapes, that only some have, or other values that
                differ.
        """
        kinds = [condition.kind for condition in conditions]
        odd = [index for index, kind in enumerate(kinds) if kind != kinds[0]]
        if odd:
            names = ", ".join(item.name for item in fields(cls))  # type: ignore[arg-type]
            raise ValueError(
                f"{cls.what} of one batch must be encoded alike ({names}); number 0 is {kinds[0]}, "
                f"number {odd[0]} is {kinds[odd[0]]}"
            )
        parts = [condition.tensors() for condition in conditions]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return replace(conditions[0], **joined)  # type: ignore[type-var]

    @property
    def kind(self) -> tuple[object, ...]:
        """What conditions that belong to one batch have in common: shapes of rows, and values."""
        values = [getattr(self, item.name) for item in fields(self)]  # type: ignore[arg-type]
        return tuple(tuple(v.shape[1:]) if isinstance(v, Tensor) else v for v in values)
