"""Giving a model of ours the weights of a transformer that somebody else holds."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper

from gtsvj_reward.backbones.admission import (
    SharingError,
    check_call,
    check_parameter,
    check_part,
    check_plain,
)
from gtsvj_reward.backbones.sharded import local

SAMPLED = 64
"""Elements of each shared tensor that are compared at every call, spread over all of it."""


def take_weights(
    ours: nn.Module, theirs: nn.Module, output_parts: Collection[str], *, live: bool
) -> "LiveWeights | None":
    """Fill an empty model with the weights of another one of its class.

    Parameters of the parts behind the last block become buffers: no hidden state depends on them.

    Args:
        ours: a model with the blocks that are to be used.
        theirs: the model that has the weights.
        output_parts: names of what stands behind the blocks.
        live: take the parameters themselves; otherwise frozen ones over the same memory.

    Raises:
        SharingError: for weights that cannot be shared; see `LiveWeights` for what else it rejects.
    """
    for name, parameter in list(ours.named_parameters()):
        if name.split(".")[0] in output_parts:
            path, _, key = name.rpartition(".")
            owner = ours.get_submodule(path)
            del owner._parameters[key]
            owner.register_buffer(key, parameter.detach(), persistent=False)
    if live:
        return LiveWeights(ours, theirs, output_parts)
    modules = dict(ours.named_modules())
    for name, part in parts_of(theirs, modules):
        if isinstance(part, BaseTunerLayer):
            raise SharingError(
                f"{name} of the transformer carries an adapter, which a judge on its weights would "
                "leave out: merge it into them, or unload it, first"
            )
        for path, key, tensor in tensors_of(name, modules[name], plain(part)):
            if key in modules[name]._parameters:
                check_plain(path, tensor)
                frozen = nn.Parameter(tensor.detach(), requires_grad=False)
                modules[name]._parameters[key] = frozen
            else:
                modules[name]._buffers[key] = tensor.detach()
    return None


class LiveWeights:
    """Ties a model of ours to one in use, whose parameters it has.

    They are the same objects, so that they follow the model when it is moved to another device.
    PEFT layers are left out: what is shared is what lies below them. Modules, and with them mode,
    hooks and adapters, are our own and touch nothing of the model in use.

    Args:
        ours: an empty model.
        theirs: the model in use.
        output_parts: names of what stands behind the blocks, which may change or be trained.

    Raises:
        SharingError: for weights that are merged, fused, hooked, sharded, or trained.
    """

    def __init__(self, ours: nn.Module, theirs: nn.Module, output_parts: Collection[str]) -> None:
        self.theirs, self.output_parts = theirs, frozenset(output_parts)
        self.modules = dict(ours.named_modules())  # before an adapter of ours comes between
        for _, module, key, parameter in self.follow():
            module._parameters[key] = parameter
        found = dict(self.tensors())
        self.dtypes = {name: tensor.dtype for name, tensor in found.items()}
        self.sample = sampled(found.values())
        self.sums = checksums(found.values())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights that hidden states depend on, with their names."""
        for name, module in self.modules.items():
            for key, tensor in module._parameters.items():
                if tensor is not None:
                    yield f"{name}.{key}".lstrip("."), tensor

    def follow(self) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
        """Take buffers, which may have been moved, and find the parameters as they are now.

        Yields:
            Full name, module of ours, key in it, and the other model's parameter.

        Raises:
            SharingError: for what cannot be shared.
        """
        for name, part in parts_of(self.theirs, self.modules):
            module = self.modules[name]
            if name.split(".")[0] not in self.output_parts:
                self.admit(name, part)
            for path, key, tensor in tensors_of(name, module, plain(part)):
                if key in module._buffers:
                    module._buffers[key] = tensor.detach() if tensor.requires_grad else tensor
                else:
                    self.admit_parameter(path, tensor)
                    yield path, module, key, tensor

    def admit(self, name: str, part: nn.Module) -> None:
        """Reject a module whose weights cannot be shared."""
        if name:
            check_part(name, part)
            check_call(name, plain(part))

    def admit_parameter(self, path: str, parameter: nn.Parameter) -> None:
        """Reject a weight that cannot be shared."""
        check_parameter(path, parameter)

    def refresh(self) -> None:
        """Follow the model where it was moved, and see that its weights are the same.

        Values are compared for a sample of each tensor, all of them in one go.

        Raises:
            SharingError: if weights were replaced, changed, cast, merged, or are trained by now.
        """
        for path, module, key, parameter in self.follow():
            if module._parameters[key] is not parameter:
                raise SharingError(
                    f"{path} of the shared transformer was replaced since the judge was attached "
                    "(by loading or casting weights): attach the judge again"
                )
        found = dict(self.tensors())
        for name, tensor in found.items():
            if tensor.dtype != self.dtypes[name]:
                raise SharingError(
                    f"{name} of the shared transformer was {self.dtypes[name]} when the judge was "
                    f"attached, it is {tensor.dtype} now: attach the judge again"
                )
        now = sampled(found.values())
        self.sample = self.sample.to(now.device)
        if not torch.equal(now, self.sample):
            ends = torch.tensor([len(sample_of(t)) for t in found.values()]).cumsum(0)
            places = (now != self.sample).nonzero().flatten().cpu()
            self.refuse(torch.bucketize(places, ends, right=True).unique())

    def verify(self) -> None:
        """As `refresh`, for every element of every tensor.

        Raises:
            SharingError: if anything changed.
        """
        self.refresh()
        changed = checksums(tensor for _, tensor in self.tensors()) != self.sums
        if changed.any():
            self.refuse(changed.nonzero().flatten())

    def refuse(self, changed: Tensor) -> None:
        """Say which tensors changed."""
        names = list(self.dtypes)
        raise SharingError(
            f"values of {len(changed)} of {len(names)} tensors of the shared transformer changed "
            f"since the judge was attached, the first is {names[int(changed[0])]}: by loading, "
            "merging or fusing weights, or by an adapter that changes them when it is made "
            "(`init_lora_weights` of olora or pissa). Undo that, or load the judge with its own "
            "weights"
        )


def sample_of(tensor: Tensor) -> Tensor:
    """Up to `SAMPLED` elements, at an odd stride, which visits the columns of a matrix too."""
    here = local(tensor.detach())
    return here.reshape(-1)[:: here.numel() // SAMPLED | 1][:SAMPLED]


def sampled(tensors: Iterable[Tensor]) -> Tensor:
    """Samples of tensors, concatenated, in float64, which holds any of their dtypes."""
    parts = [sample_of(tensor) for tensor in tensors]
    return torch.cat([part.to(parts[0].device) for part in parts]).double()


def checksums(tensors: Iterable[Tensor]) -> Tensor:
    """Sums over the bits of each tensor as integers: exact, and the same on every device."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    parts = (local(tensor.detach()) for tensor in tensors)
    bits = (part.view(integers[part.element_size()]) for part in parts)
    return torch.stack([part.sum(dtype=torch.int64).cpu() for part in bits])


def plain(module: nn.Module) -> nn.Module:
    """What lies below PEFT layers, compiled and checkpointed modules; any other module as it is."""
    while True:
        match module:
            case BaseTunerLayer():
                module = module.get_base_layer()
            case ModulesToSaveWrapper():
                module = module.original_module
            case OptimizedModule():
                module = module._orig_mod
            case CheckpointWrapper():
                module = module._checkpoint_wrapped_module
            case _:
                return module


def parts_of(model: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, nn.Module]]:
    """Modules of a model, adapters and all, by their names in a model without adapters.

    Args:
        model: the model.
        names: of modules that are wanted, each after the one that it is in; the model is "".

    Raises:
        SharingError: for a name that the model does not have.
    """
    found = {"": model}
    for name in names:
        if name:
            path, _, key = name.rpartition(".")
            child = plain(found[path])._modules.get(key)
            if child is None:
                raise SharingError(
                    f"the transformer has no {name}, as its class in diffusers has with this "
                    "config: build a backbone of your own for it"
                )
            found[name] = child
        yield name, found[name]


def tensors_of(name: str, ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Full name, key and tensor of each weight and buffer of a module, which ours has as well.

    Raises:
        SharingError: if one of the two modules has a tensor that the other lacks.
    """
    wanted, there = (
        {key: tensor for key, tensor in (m._parameters | m._buffers).items() if tensor is not None}
        for m in (ours, theirs)
    )
    if wanted.keys() != there.keys():
        odd = min(wanted.keys() ^ there.keys())
        raise SharingError(
            f"{name or 'the transformer'} has {'no' if odd in wanted else 'a'} `{odd}`, unlike the "
            f"{type(ours).__name__} of diffusers: its weights are stored in another way, as by a "
            "parametrization. Undo that, or load the judge with its own weights"
        )
    for key, tensor in there.items():
        yield f"{name}.{key}".lstrip("."), key, tensor
