"""Weights that `fully_shard` (FSDP2) spreads over processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from gtsvj_reward.backbones.ranks import Ranks, meet

RESETTABLE = "reset_iter_state" in vars(FSDPModule)
"""Whether torch can make an end of a pass that an exception has left (2.13 can)."""


class Shards:
    """The modules of a model that `fully_shard` was applied to; none for a plain model.

    Args:
        model: what is called, as the trainer holds it.
    """

    def __init__(self, model: nn.Module) -> None:
        # Each is an FSDPModule and an nn.Module, which a type cannot say.
        self.modules: list[Any] = [m for m in model.modules() if isinstance(m, FSDPModule)]

    @contextmanager
    def sharded(self) -> Iterator[None]:
        """Within it all weights are shards at first; in the end they are as they were before.

        A forward pass without gradients, as in sampling, leaves the weights of the outermost
        module gathered. If the block raises, all weights are left as shards: gathering takes all
        processes.
        """
        gathered = [module for module in self.modules if resharded(module)]
        try:
            yield
        except BaseException:
            self.reset()
            raise
        finally:
            for module in self.modules:
                module.reshard()
        for module in gathered:
            module.unshard()

    def reset(self) -> None:
        """End a forward or backward pass that raised, so that the next one begins anew."""
        for module in self.modules if RESETTABLE else []:
            if module._get_fsdp_state()._is_root:
                module.reset_iter_state()

    def gather_around(self, blocks: Sequence[nn.Module]) -> None:
        """Gather the weights of modules that contain blocks, but are none of them.

        A backward pass that starts at blocks does not come through the outputs of what is around
        them, where FSDP would gather these weights.
        """
        inside = {id(module) for block in blocks for module in block.modules()}
        for module in self.modules:
            around = any(id(part) in inside for part in module.modules())
            if around and id(module) not in inside:
                module.unshard()

    def ranks(self) -> Ranks:
        """The processes that hold the shards, all of which ask for this together in `sharded`.

        Within `Ranks.agreeing` they agree before each module that gathers weights.
        """
        for module in self.modules:
            meet(module)
        for module in self.modules:
            for parameter in own_parameters(module):
                if isinstance(parameter, DTensor):
                    return Ranks(parameter.device_mesh.get_all_groups())
        return Ranks()

    @property
    def device(self) -> torch.device | None:
        """Where sharded modules compute, which may not be where shards are kept."""
        for module in self.modules:
            device: torch.device = module._get_fsdp_state()._device
            return device
        return None

    @property
    def dtype(self) -> torch.dtype | None:
        """What sharded weights are computed in, if their mixed precision says so."""
        for module in self.modules:
            dtype: torch.dtype | None = module._get_fsdp_state()._mp_policy.param_dtype
            return dtype
        return None


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of a sharded module that are not those of another one inside it."""
    inner = [p for p in module.modules() if isinstance(p, FSDPModule) and p is not module]
    theirs = {id(parameter) for part in inner for parameter in part.parameters()}
    return [p for p in module.parameters() if id(p) not in theirs]


def resharded(module: Any) -> bool:
    """Make a module's weights shards; whether they were gathered before."""
    before = [id(parameter) for parameter in own_parameters(module)]
    module.reshard()
    return before != [id(parameter) for parameter in own_parameters(module)]


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; gathered from all processes, which call this together, if it is sharded."""
    if not isinstance(tensor, DTensor):
        return tensor
    there: Any = tensor.detach().to(tensor.device_mesh.device_type)
    found: Tensor = there.full_tensor()
    return found
