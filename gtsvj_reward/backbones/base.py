"""The contract of a backbone, and the table of those that come with the package."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gtsvj_reward.backbones.sharing import LiveWeights, SharingError, frozen_view
from gtsvj_reward.latents.fingerprint import weights_fingerprint

Share = Callable[[Any], Any]
"""Module -> a module of the same kind over its weights; see `backbones/sharing.py`."""


@dataclass(frozen=True)
class TextCondition:
    """What a text encoder produced for a batch of prompts."""

    embeds: Float[Tensor, "batch words text_dim"]
    """Token embeddings."""
    mask: Bool[Tensor, "batch words"] | None = None
    """True where a token is valid; None where the family attends to all of them."""
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    """Pooled projection, for families that take one."""

    def rows(self, index: Tensor) -> "TextCondition":
        """The condition of some samples of the batch, by integer index."""
        return TextCondition(
            self.embeds[index],
            None if self.mask is None else self.mask[index],
            None if self.pooled is None else self.pooled[index],
        )


class Backbone(nn.Module, ABC):
    """The first `depth` blocks of a video diffusion transformer.

    Subclass it and pass the object wherever a transformer is accepted to use a model of your own.
    Its parameters keep the names that they have in the diffusers model.

    Attributes:
        family: class name of the diffusers transformer, stored in checkpoints.
        depth: number of blocks held and run.
        dim: width of a token.
        latent_channels: channels that the patch embedding takes.
        patch_size: spatial patch edge, in latent pixels.
        patch_size_t: latent frames in one step, 1 where the model does not patch time.
        settings: what of the model's config decides its output besides the weights (positions,
            heads, ...), as text; part of the fingerprint.
        gradient_checkpointing: recompute blocks in the backward pass instead of storing them.
        null_words: tokens of the null text, where there may be fewer of them than the model's
            pipeline has; None where their number is fixed.
        live: what ties the weights to a transformer in use; None for weights of its own.
    """

    family: str
    depth: int
    dim: int
    latent_channels: int
    patch_size: int
    patch_size_t: int = 1
    settings: str = ""
    gradient_checkpointing: bool = False
    null_words: int | None = None
    live: LiveWeights | None = None

    @abstractmethod
    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream that leave block `depth - 1`.

        Args:
            latents: scaled latents; converted to the dtype of the weights.
            timestep: noise level in the family's own convention, 0 for clean latents.
            text: prompt embeddings; None is the null condition (embeddings of zeros).

        Returns:
            Tokens grouped by step: `step` is `steps(time)`, `tokens` the patches of one step.
        """

    @abstractmethod
    def lora_targets(self, block: int) -> list[str]:
        """Full module names of the q, k, v and out projections of one block."""

    def steps(self, latent_frames: int) -> int:
        """Steps that a clip of `latent_frames` latent frames has: ceil(T / patch_size_t)."""
        return -(-latent_frames // self.patch_size_t)

    def shorten_null_text(self, words: int) -> None:
        """Make the null text `words` tokens long; hidden states change, as with any other text.

        Raises:
            ValueError: if the number is fixed, or not in 1..null_words.
        """
        if self.null_words is None:
            raise ValueError(
                f"`text_tokens` is {words}, but the null text of {self.family} is of fixed length "
                "(HunyuanVideo's and LTX's has one valid token already): leave it out"
            )
        if not 1 <= words <= self.null_words:
            raise ValueError(
                f"`text_tokens` must be in 1..{self.null_words}, the null text of {self.family}, "
                f"got {words}"
            )
        self.null_words = words

    def check_geometry(self, latents: Tensor) -> None:
        """Refuse latents that the patch embedding cannot cut into patches.

        Raises:
            ValueError: naming the shape, what was expected and the cure.
        """
        if latents.ndim != 5 or latents.shape[2] != self.latent_channels:
            raise ValueError(
                f"{self.family} takes latents (batch, time, {self.latent_channels}, height, "
                f"width), got {tuple(latents.shape)}"
            )
        height, width = latents.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"latent height and width must be multiples of the patch size {self.patch_size}, "
                f"got {height}x{width}: crop the video before encoding it"
            )

    def base_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen weights in use with their diffusers names, whatever adapter is attached."""
        for name, parameter in self.named_parameters():
            if ".lora_" not in name:
                yield name.replace(".base_layer.", "."), parameter

    def fingerprint(self) -> str:
        """SHA-256 that tells this base model, at this depth, from any other."""
        return weights_fingerprint(self.base_tensors(), self.settings)

    def cast(self, dtype: torch.dtype) -> None:
        """Change the dtype of the base weights alone; an adapter keeps its own.

        Raises:
            SharingError: if the weights are somebody else's.
        """
        if self.live is not None:
            if all(tensor.dtype == dtype for _, tensor in self.base_tensors()):
                return
            raise SharingError(
                f"shared weights cannot be cast to {dtype}: they are the transformer's own, in "
                f"{next(self.base_tensors())[1].dtype}"
            )
        for _, tensor in self.base_tensors():
            tensor.data = tensor.data.to(dtype)

    def run_block(self, block: nn.Module, *inputs: Tensor | tuple[Tensor, Tensor] | None) -> Any:
        """Call a block, checkpointed when that is on and gradients are recorded."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


class TransformerBackbone(Backbone):
    """A backbone of a known diffusers class, which can be built from one and loaded in part.

    Args:
        transformer: the diffusers model; it is left as it is.
        depth: blocks to keep; None keeps all.
        share: makes a module over the weights of a part of the transformer.
    """

    @abstractmethod
    def __init__(
        self, transformer: Any, depth: int | None = None, *, share: Share = frozen_view
    ) -> None:
        super().__init__()

    @classmethod
    def block_count(cls, config: Mapping[str, Any]) -> int:
        """Blocks of a model, from its config."""
        return int(config["num_layers"])

    @classmethod
    def truncated(cls, config: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The config of a model that has the first `depth` blocks only."""
        return {**config, "num_layers": depth}

    @classmethod
    def skeleton(cls, config: Mapping[str, Any], depth: int) -> Any:
        """A model with the first `depth` blocks; called where new weights take no memory."""
        return getattr(diffusers, cls.family).from_config(cls.truncated(config, depth))


def check_depth(depth: int | None, available: int) -> int:
    """The number of blocks to use: all of them for None.

    Raises:
        ValueError: if `depth` is not in 1..available.
    """
    if depth is None:
        return available
    if not 1 <= depth <= available:
        raise ValueError(f"`depth` must be in 1..{available} (the model's blocks), got {depth}")
    return depth
