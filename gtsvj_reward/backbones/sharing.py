"""Building a backbone over the weights of a transformer that somebody else holds."""

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

PLAIN_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class SharingError(ValueError):
    """Weights that cannot be shared as they are; the message says why and what to do."""


def frozen_view(module: Module) -> Module:
    """A second module tree over the same storage, so that ours can be changed without the other.

    Parameters become frozen parameters of their own that point at the same memory.
    """
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in module.parameters()
    }
    memo.update({id(buffer): buffer for buffer in module.buffers()})
    return copy.deepcopy(module, memo)


class LiveWeights:
    """Makes module trees whose parameters and buffers are those of a model in use.

    Unlike with `frozen_view` they are the same objects, so that they follow the model when it is
    moved to another device. PEFT layers are left out: what is shared is what lies below them. The
    trees are modules of their own, whose mode, hooks and adapters touch nothing of the model.
    """

    def __init__(self) -> None:
        self.roots: list[nn.Module] = []
        self.pairs: list[tuple[str, nn.Module, nn.Module]] = []

    def __call__(self, module: Module) -> Module:
        """A tree that shares the weights of a part of the model.

        Raises:
            SharingError: for a part that is merged, fused, hooked, sharded, or trained.
        """
        check_parts(module)
        memo: dict[int, Any] = {id(tensor): tensor for tensor in module.parameters()}
        memo.update({id(tensor): tensor for tensor in module.buffers()})
        ours = without_adapters(copy.deepcopy(module, memo))
        for name, mine, theirs in matching_modules(ours, module):
            for key, parameter in theirs._parameters.items():
                check_parameter(f"{name}.{key}", parameter)
            self.pairs.append((name, mine, theirs))
        self.roots.append(module)
        return ours

    def refresh(self) -> None:
        """Follow the model where buffers were moved, and see that its parameters are the same ones.

        Raises:
            SharingError: if a parameter was replaced, merged, or is trained by now.
        """
        for root in self.roots:
            check_parts(root)
        for name, mine, theirs in self.pairs:
            for key, parameter in theirs._parameters.items():
                check_parameter(f"{name}.{key}", parameter)
                if mine._parameters[key] is not parameter:
                    raise SharingError(
                        f"{name}.{key} of the shared transformer was replaced since the judge was "
                        "attached (by loading or casting weights): attach the judge again"
                    )
            mine._buffers.update(theirs._buffers)


def plain(module: nn.Module) -> nn.Module:
    """What lies below a PEFT layer; any other module as it is."""
    while isinstance(module, BaseTunerLayer):
        module = module.get_base_layer()
    return module


def without_adapters(module: Module) -> Module:
    """The module with every PEFT layer inside it replaced by what lies below; changed in place."""
    for name, child in module.named_children():
        setattr(module, name, without_adapters(plain(child)))
    return module


def matching_modules(
    ours: nn.Module, theirs: nn.Module, name: str = ""
) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Each module of ours with the one of theirs that it was made from."""
    yield name, ours, theirs
    others = dict(theirs.named_children())
    for key, child in ours.named_children():
        yield from matching_modules(child, plain(others[key]), f"{name}.{key}".lstrip("."))


def check_parts(module: nn.Module) -> None:
    """Refuse modules whose weights or call are not what their class says.

    Raises:
        SharingError: saying what it is and what to do.
    """
    for name, part in module.named_modules():
        check_part(name, part)


def check_part(name: str, part: nn.Module) -> None:
    """Refuse one module; see `check_parts`."""
    if isinstance(part, BaseTunerLayer) and part.merged:
        raise SharingError(
            f"an adapter is merged into {name} of the transformer, so its weights are not the base "
            "model's: unmerge it (`unmerge_adapter`, `unfuse_lora`) before sharing"
        )
    if isinstance(part, ModulesToSaveWrapper):
        raise SharingError(
            f"{name} of the transformer is wrapped in PEFT's {type(part).__name__}, whose weights "
            "are trained: a judge can share weights below LoRA layers only"
        )
    if vars(part).get("fused_projections", False):
        raise SharingError(
            f"{name} of the transformer has fused q, k, v projections: call "
            "`unfuse_qkv_projections()` before sharing"
        )
    if "forward" in vars(part):
        raise SharingError(
            f"{name} of the transformer has its `forward` replaced by a hook, as offloading block "
            "by block does: a judge cannot share weights that come and go. Keep the transformer on "
            "its device, or load the judge with its own weights"
        )


def check_parameter(name: str, parameter: nn.Parameter | None) -> None:
    """Refuse a base weight that is trained, quantised, sharded, or not there.

    Raises:
        SharingError: saying what it is and what to do.
    """
    if parameter is None:
        return
    if parameter.requires_grad:
        raise SharingError(
            f"{name} of the transformer requires grad: a judge would change while its base is "
            "trained. Train an adapter on frozen weights, or load the judge with its own weights"
        )
    if parameter.is_meta:
        raise SharingError(
            f"{name} of the transformer is on the meta device, as offloaded weights are: keep the "
            "transformer in memory, or load the judge with its own weights"
        )
    if type(parameter) is not nn.Parameter or parameter.dtype not in PLAIN_DTYPES:
        raise SharingError(
            f"{name} of the transformer is a {type(parameter).__name__} of {parameter.dtype}: "
            "quantised and sharded weights cannot be shared. Load the judge with its own weights"
        )
