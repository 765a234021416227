"""A policy in training, watched while its own forward runs without its adapters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from gtsvj_reward.backbones.admission import SharingError
from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.backbones.image import ImageCondition
from gtsvj_reward.backbones.load import known_family
from gtsvj_reward.backbones.lora import lora_layers
from gtsvj_reward.backbones.policy import PolicyWeights, adapters_off, called_and_model
from gtsvj_reward.backbones.sharded import Shards, whole
from gtsvj_reward.backbones.taps import Read
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import check_depth
from gtsvj_reward.latents.fingerprint import weights_fingerprint
from gtsvj_reward.locks import lock_of


class LiveBackbone(Backbone):
    """Watches a policy's own forward: sharded, offloaded, compiled or checkpointed as it is.

    Nothing is copied, and no weight is ours. All blocks of the policy run, whatever the depth.

    Calls are made within `as_base`. Processes that hold shards of one policy call together; see
    `ranks`.

    Args:
        policy: a diffusers transformer as a trainer holds it, with adapters on frozen weights.
        depth: blocks to look at; None: all of them.
        device: where the policy computes; None: as it says itself.
        predicts: what the policy predicts is read too, so that its output layers may not change.

    Raises:
        SharingError: for a policy that cannot be judged by its own forward, saying why.
        ValueError: for a class without a backbone, or a depth out of range.
    """

    live: PolicyWeights

    def __init__(
        self,
        policy: nn.Module,
        depth: int | None = None,
        *,
        device: str | torch.device | None = None,
        predicts: bool = False,
    ) -> None:
        super().__init__()
        called, model = called_and_model(policy)
        family = known_family(type(model).__name__.removeprefix("FSDP"))
        config: Any = model.config
        available = len(family.blocks_of(model))
        depth = check_depth(depth, available)
        with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
            skeleton = family.skeleton(config, depth)
        reader = family(skeleton, depth)
        # None of these are modules of ours: whoever moves, casts or freezes the judge leaves the
        # policy as it is.
        self.outside = {"called": called, "policy": model, "reader": reader}
        self.family, self.depth, self.dim = reader.family, depth, reader.dim
        self.latent_channels, self.settings = reader.latent_channels, reader.settings
        self.patch_size, self.patch_size_t = reader.patch_size, reader.patch_size_t
        self.output_parts, self.image_use = reader.output_parts, reader.image_use
        self.given_frames = reader.given_frames
        self.whole, self.flow_matching = depth == available, reader.flow_matching
        self.given_device = None if device is None else torch.device(device)
        self.shards = Shards(called)
        with self.shards.sharded():
            self.ranks = self.shards.ranks()
            with self.ranks.agreeing():
                behind = reader.output_parts
                self.live = PolicyWeights(
                    reader.model, model, behind, self.shards, predicts=predicts
                )
        self.eval()

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """What is called."""
        return self.outside["called"]

    @property
    def reader(self) -> Any:
        """A backbone of the policy's class that prepares its inputs, and has no weights."""
        return self.outside["reader"]

    def blocks(self) -> list[nn.Module]:
        """The policy's blocks that may be looked at, in order."""
        found: list[nn.Module] = self.reader.blocks_of(self.outside["policy"])[: self.depth]
        return found

    def forward(
        self,
        latents: Tensor,
        *,
        timestep: float,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
        taps: Sequence[int] | None = None,
        read: Read | None = None,
    ) -> Tensor | Mapping[int, Tensor]:
        """See `Backbone.forward`."""
        seen: Any = super().forward(
            latents, timestep=timestep, text=text, image=image, taps=taps, read=read
        )
        for found in seen.values() if isinstance(seen, Mapping) else [seen]:
            if found.requires_grad:
                found.register_hook(self.gather)
        result: Tensor | Mapping[int, Tensor] = seen
        return result

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`."""
        found: dict[str, Any] = self.reader.inputs(latents, timestep=timestep, text=text)
        return found

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`."""
        found: dict[str, Any] = self.reader.with_image(inputs, latents, image)
        return found

    def as_latents(self, output: Tensor, shape: torch.Size) -> Tensor:
        """See `Backbone.as_latents`."""
        found: Tensor = self.reader.as_latents(output, shape)
        return found

    def lora_targets(self, block: int) -> list[str]:
        """None: a judge has no adapter in a policy's blocks."""
        del block
        raise SharingError("a live judge has no adapter of its own: the blocks are the policy's")

    def base_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen weights in use with their diffusers names; shards, if they are sharded."""
        yield from self.reader.base_tensors()

    def fingerprint(self) -> str:
        """As `Backbone.fingerprint`; of sharded weights, one whole tensor at a time.

        All processes that hold shards call this together.
        """
        with self.shards.sharded():
            tensors = ((name, whole(tensor)) for name, tensor in self.base_tensors())
            return weights_fingerprint(tensors, self.settings)

    @property
    def dtype(self) -> torch.dtype:
        """What the policy's base weights are computed in."""
        return self.shards.dtype or super().dtype

    @property
    def device(self) -> torch.device:
        """Where the policy computes."""
        found = self.given_device or self.shards.device or self.offloaded_from
        return found or super().device

    @property
    def offloaded_from(self) -> torch.device | None:
        """Where groups of weights go while they are used; None for weights that stay."""
        for module in self.outside["policy"].modules():
            registry = vars(module).get("_diffusers_hook")
            hook = registry.get_hook("group_offloading") if registry else None
            if hook is not None:
                device: torch.device = torch.device(hook.group.onload_device)
                return device
        return None

    def cast(self, dtype: torch.dtype) -> None:
        """Reject another dtype than the policy's."""
        if dtype != self.dtype:
            raise SharingError(f"a live judge computes as its policy does, in {self.dtype}")

    def together(self) -> AbstractContextManager[None]:
        """See `Backbone.together`; passes of the policy are all that may communicate in it."""
        return self.ranks.agreeing()

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Within it the policy is the judge's base; afterwards it is as it was.

        Other threads' judges of this policy wait; the policy itself may not be called meanwhile.
        """
        recording = torch.is_grad_enabled()
        with (
            lock_of(self.outside["policy"]),
            self.shards.sharded(),
            adapters_off(self.model),
            torch.inference_mode(False),
            torch.set_grad_enabled(recording),  # leaving inference mode turns it on
        ):
            yield

    def gather(self, gradient: Tensor) -> None:
        """When a backward pass comes to the blocks: have the weights that are around them."""
        del gradient
        self.ranks.agree()
        self.shards.gather_around(self.blocks())


def sharded_backbone(backbone: Backbone, mesh: DeviceMesh, *, predicts: bool) -> LiveBackbone:
    """A backbone whose own weights are spread over the processes of a mesh, block by block.

    All of them call this together. Weights that half precision leaves in float32 stay whole.

    Args:
        backbone: with frozen weights of its own; its model is sharded in place.
        mesh: the processes, and the kind of their devices.
        predicts: see `LiveBackbone`.

    Raises:
        SharingError: for weights that are a transformer's in use, and for an adapter.
    """
    if backbone.live is not None or lora_layers(backbone):
        raise SharingError(
            "only a judge's own weights without an adapter can be sharded: one with "
            "readout='moments', loaded without `transformer=`"
        )
    for module in (*backbone.blocks(), backbone.model):
        others = {p for p in module.parameters() if p.dtype != backbone.dtype}
        apart: Any = {"ignored_params": others} if others else {}  # torch >= 2.7
        fully_shard(module, mesh=mesh, **apart)
    return LiveBackbone(backbone.model, backbone.depth, predicts=predicts)
