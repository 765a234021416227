"""Processes that make a call together, since each holds a part of the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


class RankError(RuntimeError):
    """Another process refused its part of a call; the message has its own."""


class Ranks:
    """The processes that hold parts of the same weights.

    Args:
        groups: that the weights are spread over, one for each dimension of the device mesh; none
            for weights that this process holds whole, where nothing is exchanged.
    """

    def __init__(self, groups: Sequence[dist.ProcessGroup] = ()) -> None:
        self.groups = tuple(groups)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, the same list in each."""
        values = [value]
        for group in self.groups:
            found: list[list[T]] = [[] for _ in range(group.size())]
            dist.all_gather_object(found, values, group=group)
            values = [each for part in found for each in part]
        return values

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What one process raises in the block, all raise at its end, so that none waits for it.

        The block may not communicate: others could have left it by an exception.

        Raises:
            RankError: in the processes that did not fail themselves.
        """
        try:
            yield
        except Exception as error:
            self.gather(f"{type(error).__name__}: {error}")
            raise
        complaints = self.gather("")
        failed = [rank for rank, complaint in enumerate(complaints) if complaint]
        if failed:
            raise RankError(
                f"{len(failed)} of the {len(complaints)} processes that hold parts of the weights "
                f"refused the call, the first is number {failed[0]}: {complaints[failed[0]]}"
            )
