"""A transformer in training as a judge calls it: what is called, what is rejected, what is off."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gtsvj_reward.backbones.admission import (
    PLAIN_DTYPES,
    SharingError,
    check_frozen,
    check_unfused,
    check_unmerged,
    without_peft,
)
from gtsvj_reward.backbones.sharded import Shards
from gtsvj_reward.backbones.sharing import LiveWeights, plain

OFFLOADING = {"group_offloading", "lazy_prefetch_group_offloading", "layer_execution_tracker"}
"""Hooks of diffusers that move weights and change no number."""

REASONS = {
    "layerwise_casting": "stores weights in fewer bits than those that the judge was trained on",
    "peft_autocast_disable": "belongs to layerwise casting, which stores weights in fewer bits",
    "cp_": "splits the tokens of a clip over processes, and the judge needs all of them in one",
    "": "changes or leaves out what blocks compute, as caches do",
}
"""Start of a hook's name -> why a judge cannot work with it."""

OF_TOOLS = ("torch.distributed.", "gtsvj_reward.")
"""Modules whose forward hooks change no number: those of `fully_shard`, and our own."""


def called_and_model(policy: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What to call of a policy as a trainer holds it, and the diffusers model in it.

    DDP and a compiled module around it are gone past: they are for gradients of weights, and for
    speed. A `PeftModel` is called itself, since `fully_shard` may have been applied to it.

    Raises:
        SharingError: for FSDP1.
    """
    called = policy
    while isinstance(called, DistributedDataParallel | OptimizedModule):
        inner = called.module if isinstance(called, DistributedDataParallel) else called._orig_mod
        called = inner
    for module in called.modules():
        if isinstance(module, FullyShardedDataParallel):
            raise SharingError(
                "got a transformer sharded by FSDP1, which flattens all weights of a block into "
                "one tensor, so the judge's base cannot be checked. Shard it with FSDP2 "
                "(`fully_shard`; in accelerate `fsdp_version: 2`), or load the judge with its own "
                "weights"
            )
    model = without_peft(called)
    return called, plain(model)


class PolicyWeights(LiveWeights):
    """Ties a judge to the weights of a policy whose own forward it calls.

    They may be sharded by `fully_shard`, or offloaded group by group: what is compared is the part
    of each tensor that this process holds.

    Args:
        ours: a model of the policy's class on the meta device, for names and shapes; it gets the
            policy's parameters, and is never called.
        theirs: the policy's diffusers model.
        output_parts: names of what stands behind the blocks.
        shards: those of what is called.
        predicts: what stands behind the blocks is read as well; otherwise it may change.

    Raises:
        SharingError: for weights that are trained, merged, fused, hooked or quantised.
    """

    def __init__(
        self,
        ours: nn.Module,
        theirs: nn.Module,
        output_parts: Collection[str],
        shards: Shards,
        *,
        predicts: bool,
    ) -> None:
        self.shapes = {name: parameter.shape for name, parameter in ours.named_parameters()}
        self.shards = shards
        self.read_behind = frozenset(output_parts if predicts else ())
        super().__init__(ours, theirs, () if predicts else output_parts)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """As `LiveWeights.tensors`, with those behind the blocks if they are read."""
        yield from super().tensors()
        for name, module in self.modules.items():
            for key, tensor in module._buffers.items():
                path = f"{name}.{key}".lstrip(".")
                if tensor is not None and path.split(".")[0] in self.read_behind:
                    yield path, tensor

    def refresh(self) -> None:
        """As `LiveWeights.refresh`, of this process's part of the weights."""
        with self.shards.sharded():
            super().refresh()

    def verify(self) -> None:
        """As `LiveWeights.verify`, of this process's part of the weights."""
        with self.shards.sharded():
            super().verify()

    def admit(self, name: str, part: nn.Module) -> None:
        """Reject a module that would compute otherwise than the base does, adapters off."""
        check_unmerged(name, part)
        below = plain(part)
        check_unfused(name, below)
        for module in {id(module): module for module in (part, below)}.values():
            check_hooks(name or "the transformer", module)
        for key, parameter in below._parameters.items():
            path = f"{name}.{key}".lstrip(".")
            if parameter is not None and path.split(".")[0] in self.read_behind:
                check_frozen(path, parameter)

    def admit_parameter(self, path: str, parameter: nn.Parameter) -> None:
        """Reject a base weight that is trained, quantised, in other pieces, or not there."""
        check_frozen(path, parameter)
        sharded = isinstance(parameter, DTensor)
        if sharded and not self.shards.modules:
            raise SharingError(
                f"{path} of the transformer is split by tensor parallelism, where no process has "
                "whole tokens: load the judge with its own weights"
            )
        known = type(parameter) is nn.Parameter or sharded
        if not known or parameter.dtype not in PLAIN_DTYPES:
            raise SharingError(
                f"{path} of the transformer is a {type(parameter).__name__} of {parameter.dtype}: "
                "quantised weights differ from those the judge was trained on, and so would its "
                "scores. Load the judge with its own weights, or fit one to the dequantised model"
            )
        if parameter.is_meta or parameter.shape != self.shapes[path]:
            raise SharingError(
                f"{path} of the transformer is not in memory: it has the shape "
                f"{tuple(parameter.shape)} on {parameter.device}, expected "
                f"{tuple(self.shapes[path])}. Weights offloaded to disk, and those of ZeRO-3, are "
                "not available between calls: use FSDP2, or load the judge with its own weights"
            )


def check_hooks(name: str, module: nn.Module) -> None:
    """Reject hooks that may change what a module computes."""
    registry = vars(module).get("_diffusers_hook")
    found = [hook for hook in (registry.hooks if registry else ()) if hook not in OFFLOADING]
    if found:
        why = next(why for start, why in REASONS.items() if found[0].startswith(start))
        raise SharingError(
            f"{name} of the transformer has diffusers' hook {found[0]!r}, which {why}: turn it off "
            "for training, or load the judge with its own weights"
        )
    if replaced_forward(module) and not registry:
        raise SharingError(
            f"{name} of the transformer has its `forward` replaced, as accelerate's offloading and "
            "patches for sequence parallelism do: use group offloading, or load the judge with its "
            "own weights"
        )
    tables = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    for hook in (hook for table in tables for hook in table.values()):
        if not origin(hook).startswith(OF_TOOLS):
            raise SharingError(
                f"{name} of the transformer has a hook from {origin(hook)!r}, which a live judge "
                "would run as well: take it off around the call, or load the judge with its own "
                "weights, where hooks are not copied"
            )


def replaced_forward(module: nn.Module) -> bool:
    """Whether a module has another forward than its class, set by nobody that is known here."""
    forward = vars(module).get("forward")
    if forward is None or isinstance(module, OptimizedModule):
        return False
    # accelerate gives a prepared model a forward under autocast, and keeps the original
    known = "_original_forward" in vars(module)
    plain_method = inspect.ismethod(forward) and forward.__func__ is type(module).forward
    return not known and not plain_method


def origin(hook: Callable[..., Any]) -> str:
    """The Python module that a hook comes from."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    module = inspect.getmodule(hook)
    return "an unknown place" if module is None else module.__name__


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Within it a model computes without its adapters, in evaluation mode.

    PEFT's own switch sets `requires_grad` of all adapters of a layer, also of frozen ones, so it is
    not used: no other flag than the one that is read by a layer's forward is touched.
    """
    modules = list(model.modules())
    modes = [(module, module.training) for module in modules]
    layers = [m for m in modules if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    switches = [(layer, layer._disable_adapters) for layer in layers]
    try:
        for module in modules:
            module.training = False
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, off in switches:
            layer._disable_adapters = off
