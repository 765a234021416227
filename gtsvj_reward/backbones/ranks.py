"""Processes that make a call together, since each holds a part of the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


class RankError(RuntimeError):
    """Another process failed in its part of a call; the message has its own."""


class Ranks:
    """The processes that hold parts of the same weights.

    What they tell one another goes from CPU to CPU by gloo, so that none waits for its device.

    Args:
        groups: that the weights are spread over, one for each dimension of the device mesh, made
            by all processes together; none for weights that this process holds whole, where
            nothing is exchanged.
    """

    def __init__(self, groups: Sequence[dist.ProcessGroup] = ()) -> None:
        self.groups = tuple(between_cpus(group) for group in groups)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, the same list in each."""
        values = [value]
        for group in self.groups:
            found: list[list[T]] = [[] for _ in range(group.size())]
            dist.all_gather_object(found, values, group=group)
            values = [each for part in found for each in part]
        return values

    def agree(self, complaint: str = "") -> None:
        """Go on together: return in all processes, or raise in all if one has a complaint.

        Raises:
            RankError: in the processes without a complaint.
        """
        failed = torch.tensor(bool(complaint), dtype=torch.int32)
        for group in self.groups:
            dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
        if not failed:
            return
        complaints = self.gather(complaint)
        who = [rank for rank, each in enumerate(complaints) if each]
        if not complaint:
            raise RankError(
                f"{len(who)} of the {len(complaints)} processes that hold parts of the weights "
                f"failed in the call, the first is number {who[0]}: {complaints[who[0]]}"
            )

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What one process raises in the block, all raise: at its end, or in a module on the way.

        The block may communicate within modules that `meet` was applied to, and nowhere else:
        others could have left it by an exception.

        Raises:
            RankError: in the processes that did not fail themselves.
        """
        token = AGREEING.set(self)
        try:
            yield
        except RankError:
            raise  # all have it already
        except BaseException as error:  # also Ctrl-C, or the others would wait for this process
            self.agree(f"{type(error).__name__}: {error}")
            raise
        finally:
            AGREEING.reset(token)
        self.agree()


AGREEING: ContextVar[Ranks | None] = ContextVar("AGREEING", default=None)
"""The processes of the present call, while what one of them raises is to be raised by all."""


def between_cpus(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """A group of the same processes for messages between CPUs."""
    if dist.get_backend(group) == "gloo":
        return group
    members = dist.get_process_group_ranks(group)
    made: dist.ProcessGroup = dist.new_group(
        members, backend="gloo", use_local_synchronization=True
    )
    return made


def meet(module: nn.Module) -> None:
    """Let processes agree to go on before a module gathers its weights, forward and backward.

    Its own hooks for that must be there already. Without `agreeing` around a call nothing is
    exchanged.
    """
    if before not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(before, prepend=True)
        module.register_forward_hook(behind, prepend=True)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def before(module: nn.Module, inputs: Any) -> None:
    """The hook before a forward pass."""
    del module, inputs
    ranks = AGREEING.get()
    if ranks is not None:
        ranks.agree()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def behind(module: nn.Module, inputs: Any, output: Any) -> None:
    """The hook after it: agree when a backward pass comes here, which may be another thread's."""
    del module, inputs
    ranks = AGREEING.get()
    if ranks is None:
        return
    came: list[bool] = []

    def agree_once(gradient: Tensor) -> None:
        del gradient
        if not came:
            came.append(True)
            ranks.agree()

    for tensor in output if isinstance(output, tuple) else (output,):
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            tensor.register_hook(agree_once)
