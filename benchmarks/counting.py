"""Costs counted on the meta device: operations, bytes saved for a backward pass, bytes alive.

Nothing is computed there, so that models of any size can be counted on any machine. What a GPU
adds is not seen: workspaces of kernels, fragmentation, the CUDA context.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.weak import WeakIdKeyDictionary

GIB = 2**30


@contextmanager
def fused_attention() -> Iterator[None]:
    """Use the fused attention kernels of a GPU for meta tensors, and let Mochi run there.

    By itself torch takes the plain implementation on the meta device, which would save the whole
    matrix of attention weights. Masks change neither operations nor what is saved, and are not
    looked at. Mochi asks which words of a prompt are valid; the answer is none, as in the null
    condition. Functions are replaced, since a mode would not reach what is recomputed.
    """
    plain, nonzero = F.scaled_dot_product_attention, torch.nonzero

    def attend(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return fused(query, *args, **kwargs) if query.is_meta else plain(query, *args, **kwargs)

    def valid(mask: Tensor, **kwargs: Any) -> Any:
        if mask.is_meta:
            return torch.empty(0, mask.ndim, dtype=torch.long, device="meta")
        return nonzero(mask, **kwargs)

    try:
        F.scaled_dot_product_attention, torch.nonzero = attend, valid
        yield
    finally:
        F.scaled_dot_product_attention, torch.nonzero = plain, nonzero


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,  # noqa: ARG001
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` by the operator of a fused kernel; same arguments."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    output: Tensor = kernel(query, key, value, dropout_p, is_causal, scale=scale)[0]
    return output


class Meter(TorchDispatchMode):
    """Operations since it was entered, and bytes in use of the tensors made since.

    It holds on to no tensor. torch's `FlopCounterMode` does, for as long as a backward pass takes,
    and so cannot stand beside a count of bytes.

    Attributes:
        operations: floating point operations.
        now: bytes in use.
        peak: the most that was in use at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.now = 0
        self.peak = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in tensors_in((args, kwargs)):  # a view of what was there before is not new
            self.known.setdefault(tensor.untyped_storage(), None)
        result = func(*args, **kwargs)
        for tensor in tensors_in(result):
            self.see(tensor.untyped_storage())
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result

    def see(self, storage: Any) -> None:
        """Count a new storage until it is freed."""
        if storage in self.known:
            return
        self.known[storage] = None
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, storage.nbytes()).atexit = False

    def free(self, size: int) -> None:
        """Subtract freed bytes."""
        self.now -= size


class SavedBytes(saved_tensors_hooks):
    """Bytes that autograd keeps for the backward pass, each storage once.

    Args:
        modules: whose weights are in memory anyway and are not counted.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(self.note, lambda tensor: tensor)
        self.saved = WeakIdKeyDictionary()
        self.weights = WeakIdKeyDictionary()
        for module in modules:
            for tensor in [*module.parameters(), *module.buffers()]:
                self.weights[tensor.untyped_storage()] = None

    def __enter__(self) -> "SavedBytes":
        super().__enter__()
        return self

    def note(self, tensor: Tensor) -> Tensor:
        """Count a saved tensor."""
        storage = tensor.untyped_storage()
        if storage not in self.weights:
            self.saved[storage] = storage.nbytes()
        return tensor.detach()  # the tensor itself could lead back to the node that keeps it

    @property
    def total(self) -> int:
        """Bytes saved and not yet freed."""
        return sum(self.saved.values())


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors of nested lists and dictionaries."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def operations(run: Callable[[], object]) -> int:
    """Floating point operations of a call without gradients; a multiplication and an addition: 2.

    On the CPU the plain implementation of attention is taken, whose products are seen.
    """
    counter, plain = FlopCounterMode(display=False), sdpa_kernel(SDPBackend.MATH)
    with plain, counter, torch.no_grad(), fused_attention():
        run()
    return int(counter.get_total_flops())


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Cost of a call without gradients, beside the weights."""

    operations: int
    """Floating point operations."""
    peak: int
    """Most bytes alive at once."""


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """Cost of a call and of the backward pass after it, beside the weights."""

    operations: int
    """Floating point operations of both; fused attention computes its weights twice."""
    forward: int
    """Floating point operations of the call alone."""
    saved: int
    """Bytes kept between the two."""
    peak: int
    """Most bytes alive at once, what is recomputed and the gradients of the inputs included."""


def count_scoring(run: Callable[[], object]) -> Scoring:
    """Cost of a call without gradients."""
    with torch.no_grad(), Meter() as meter, fused_attention():
        run()
    return Scoring(operations=meter.operations, peak=meter.peak)


def count_gradient(run: Callable[[], Tensor], *modules: nn.Module) -> Gradient:
    """Cost of a call and of the backward pass from the sum of its outputs.

    Args:
        run: returns a tensor with a graph.
        modules: whose weights are in memory anyway.
    """
    with Meter() as meter, fused_attention():
        with SavedBytes(*modules) as saved:
            total = run().sum()
        kept, forward = saved.total, meter.operations
        total.backward()
    return Gradient(operations=meter.operations, forward=forward, saved=kept, peak=meter.peak)


def frozen_model(
    make: Callable[[], Any], dtype: torch.dtype = torch.bfloat16, device: str = "meta"
) -> Any:
    """A frozen model, in evaluation mode, in the dtype of its use.

    On the meta device it has no values, elsewhere random ones.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def held(module: nn.Module) -> int:
    """Bytes of a module's parameters, each once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
