"""What leaves chosen blocks during a call of a model, seen by forward hooks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

Read = Callable[[Tensor], Tensor]
"""What is kept of the video tokens that left a block."""

Seen = dict[int, list[Tensor]]
"""Tap -> what was read of its block, a tensor for each time that it ran."""

Watched = tuple[Mapping[int, int], Read, Seen]
WATCHED: ContextVar[Watched | None] = ContextVar("WATCHED", default=None)
"""The call that is being watched: which modules (by identity) are taps, and what was seen.

It belongs to a thread: others that call the same blocks meanwhile, and backward passes that
recompute them, see None."""


class HiddenBlockError(RuntimeError):
    """A block did not run once in a forward pass, as far as its hook can tell."""


# A compiled block calls its hooks outside of its graph, where this works unchanged.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def note(module: nn.Module, inputs: Any, output: Any) -> None:
    """The forward hook: reads the video tokens of a block that is a tap of the present call.

    They are read at once, not after the call: a backward pass runs what was recorded last first, so
    that it would have the gradients of all taps wait for the blocks behind them.
    """
    del inputs
    watched = WATCHED.get()
    if watched is not None and id(module) in watched[0]:
        taps, read, seen = watched
        tokens = output[0] if isinstance(output, tuple) else output
        # Where the block is recomputed in the backward pass, this hook is not: it saves tensors by
        # itself, beside what the recomputation restores.
        with saved_tensors_hooks(Tensor.detach, lambda saved: saved):
            seen[taps[id(module)]].append(read(tokens))


def make_visible(block: nn.Module) -> None:
    """Give a block the hook, unless it has it."""
    if note not in block._forward_hooks.values():
        block.register_forward_hook(note)


@contextmanager
def watching(blocks: Mapping[int, nn.Module], read: Read) -> Iterator[Seen]:
    """Within it, one call of a model is watched.

    Args:
        blocks: tap -> its block.
        read: what to keep of the video tokens that leave a block.

    Raises:
        HiddenBlockError: if a block was not seen once.
    """
    seen: Seen = {tap: [] for tap in blocks}
    for block in blocks.values():
        make_visible(block)
    token = WATCHED.set(({id(block): tap for tap, block in blocks.items()}, read, seen))
    try:
        yield seen
    finally:
        WATCHED.reset(token)
    for tap, outputs in seen.items():
        if len(outputs) != 1:
            raise HiddenBlockError(
                f"the hook of block {tap} ran {len(outputs)} times in one forward pass, expected "
                "once. Hooks added after a whole model was compiled never run: compile its blocks "
                "(`compile_repeated_blocks`), or compile it after the judge is built"
            )


def check_taps(taps: Sequence[int] | None, depth: int) -> list[int]:
    """The taps of a call: the last block for None."""
    wanted = [depth] if taps is None else list(taps)
    if not wanted or len(set(wanted)) < len(wanted) or not all(1 <= t <= depth for t in wanted):
        raise ValueError(
            f"`taps` must be different numbers of blocks in 1..{depth}, one at least, got {wanted}"
        )
    return wanted
