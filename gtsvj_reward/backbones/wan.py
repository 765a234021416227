"""Wan 2.1 and 2.2: text-to-video models, and the 5B model that takes text or an image."""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Share, TextCondition, TransformerBackbone, check_depth
from gtsvj_reward.backbones.sharing import frozen_view

SETTINGS = ("attention_head_dim", "eps", "num_attention_heads")
"""Fields of the model's config that change hidden states without changing any weight."""

TEXT_LENGTH = 512
"""Text tokens of the null condition: what the pipelines pad prompts to, with zeros."""

KEPT_IN_FLOAT32 = {"time_embedder", "scale_shift_table", "norm2"}
"""Modules and parameters that diffusers leaves in float32 when it loads in half precision."""


def refuse_other_tasks(config: Any) -> None:
    """Refuse models that want more than a text and a noisy video.

    Raises:
        ValueError: naming the fields of the config that say so.
    """
    added = {name: config[name] for name in ("added_kv_proj_dim", "image_dim") if config[name]}
    if added:
        raise ValueError(
            f"a judge needs a text-to-video transformer; this one attends to an image ({added}), "
            "as image-to-video models of Wan 2.1 do"
        )
    if config.out_channels not in (None, config.in_channels):
        raise ValueError(
            f"a judge needs a text-to-video transformer; this one takes {config.in_channels} "
            f"channels and gives {config.out_channels}, as image-to-video models do"
        )
    step, height, width = config.patch_size
    if step != 1 or height != width:
        raise ValueError(f"expected patches of (1, p, p) latents, got {tuple(config.patch_size)}")


class WanBackbone(TransformerBackbone):
    """The first blocks of a `WanTransformer3DModel` that generates from text.

    `timestep` runs from 0 (clean) to 1000 (noise), as in the scheduler's `timesteps`. There is
    one for the whole clip: the 5B model's pipeline writes it out for every token, which without a
    conditioning image is the same number. Prompts are embeddings padded with zeros, as
    `WanPipeline.encode_prompt` returns them; the model attends to the padding too.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to keep, all of them by default.
        share: makes a module over the weights of a part of the transformer.

    Raises:
        ValueError: for an image-to-video model, which wants an image that a judge does not have.
    """

    family = "WanTransformer3DModel"
    null_words: int = TEXT_LENGTH

    def __init__(
        self, transformer: Any, depth: int | None = None, *, share: Share = frozen_view
    ) -> None:
        super().__init__(transformer)
        config = transformer.config
        refuse_other_tasks(config)
        self.depth = check_depth(depth, len(transformer.blocks))
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size[1]
        self.settings = json.dumps({name: config[name] for name in SETTINGS}, sort_keys=True)
        self.text_dim: int = config.text_dim
        self.max_positions: int = config.rope_max_seq_len
        # First, so that its dtype counts as the model's: others may be kept in float32.
        self.patch_embedding = share(transformer.patch_embedding)
        self.rope = share(transformer.rope)
        self.condition_embedder = share(transformer.condition_embedder)
        self.blocks = nn.ModuleList(share(block) for block in transformer.blocks[: self.depth])
        self.rotary_key: tuple[torch.Size, torch.device] | None = None
        self.rotary: Any = None

    def lora_targets(self, block: int) -> list[str]:
        """Full names of to_q, to_k, to_v and to_out.0 of the self-attention of one block."""
        prefix = f"blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    def cast(self, dtype: torch.dtype) -> None:
        """Change the dtype of the base weights; half precision keeps some in float32.

        Those are the ones of `KEPT_IN_FLOAT32`, as in a model that diffusers loaded in that dtype.

        Raises:
            SharingError: if the weights are somebody else's, in another dtype.
        """
        tensors = [(name.split("."), tensor) for name, tensor in self.base_tensors()]
        kept = [tensor for parts, tensor in tensors if not KEPT_IN_FLOAT32.isdisjoint(parts)]
        others = [tensor for parts, tensor in tensors if KEPT_IN_FLOAT32.isdisjoint(parts)]
        half = dtype in (torch.float16, torch.bfloat16)
        if self.live is not None and half and all(tensor.dtype == dtype for tensor in others):
            return
        before = [tensor.data for tensor in kept]
        super().cast(dtype)
        if half and self.live is None:
            for tensor, data in zip(kept, before, strict=True):
                tensor.data = data.float()

    def text_embeds(self, text: TextCondition | None, batch: int, like: Tensor) -> Tensor:
        """Prompt embeddings for the batch; zeros where there are none, all padding to Wan.

        Raises:
            ValueError: on another batch size or width, or a mask.
        """
        if text is None:
            return like.new_zeros(batch, self.null_words, self.text_dim)
        if text.mask is not None or text.pooled is not None:
            raise ValueError(
                "Wan attends to all text tokens: give `embeds` alone, with zeros as padding"
            )
        words = text.embeds.shape[1]
        expected = (batch, words, self.text_dim)
        if tuple(text.embeds.shape) != expected or not words:
            raise ValueError(
                f"expected text embeddings ({batch}, words, {self.text_dim}), "
                f"got {tuple(text.embeds.shape)}"
            )
        return text.embeds.to(like)

    def rotary_table(self, latents: Float[Tensor, "batch channel step height width"]) -> Any:
        """Rotary positions of latents of that shape; kept until another shape or device comes.

        Raises:
            ValueError: for more patches along an axis than the model has positions.
        """
        grid = (latents.shape[2], *(side // self.patch_size for side in latents.shape[3:]))
        if max(grid) > self.max_positions:
            raise ValueError(
                f"{self.family} has {self.max_positions} positions along each axis, the clip has "
                f"{grid} patches in time, height and width: cut it to fit"
            )
        key = (latents.shape[2:], latents.device)
        if key != self.rotary_key:
            # Tables made in inference mode could not be used in a backward pass later.
            with torch.inference_mode(False), torch.no_grad():
                self.rotary = self.rope(latents)
            self.rotary_key = key
        return self.rotary

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream; see `Backbone.forward`."""
        self.check_geometry(latents)
        latents = latents.to(self.patch_embedding.weight.dtype).transpose(1, 2)
        batch, _, steps, height, width = latents.shape
        per_step = (height // self.patch_size) * (width // self.patch_size)
        rotary = self.rotary_table(latents)
        tokens = self.patch_embedding(latents).flatten(2).transpose(1, 2).contiguous()
        timesteps = torch.full((batch,), timestep, device=latents.device)
        words = self.text_embeds(text, batch, latents)
        _, modulation, words, _ = self.condition_embedder(timesteps, words)
        modulation = modulation.unflatten(1, (6, -1))
        for block in self.blocks:
            tokens = self.run_block(block, tokens, words, modulation, rotary)
        hidden: Tensor = tokens.unflatten(1, (steps, per_step))
        return hidden
