"""Wan 2.1 and 2.2: text-to-video models, and the 5B model that takes text or an image."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from gtsvj_reward.backbones.base import TransformerBackbone
from gtsvj_reward.backbones.text import TextCondition

SETTINGS = ("attention_head_dim", "eps", "num_attention_heads")
"""Fields of the model's config that change hidden states without changing any weight."""

TEXT_LENGTH = 512
"""Text tokens of the null condition: what the pipelines pad prompts to, with zeros."""


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
    """Watches a `WanTransformer3DModel` that generates from text.

    `timestep` runs from 0 (clean) to 1000 (noise), as in the scheduler's `timesteps`. There is
    one for the whole clip: the 5B model's pipeline writes it out for every token, which without a
    conditioning image is the same number. Prompts are embeddings padded with zeros, as
    `WanPipeline.encode_prompt` returns them; the model attends to the padding too.

    Image-to-video models are refused: they want an image that a judge does not have.
    """

    family = "WanTransformer3DModel"
    output_parts = ("norm_out", "proj_out", "scale_shift_table")

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        refuse_other_tasks(config)
        self.config = config
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size[1]
        self.settings = json.dumps({name: config[name] for name in SETTINGS}, sort_keys=True)

    @staticmethod
    def blocks_of(model: Any) -> list[nn.Module]:
        """See `TransformerBackbone.blocks_of`."""
        return list(model.blocks)

    def lora_targets(self, block: int) -> list[str]:
        """Names of to_q, to_k, to_v and to_out.0 of the self-attention of one block."""
        prefix = f"blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    def text_embeds(self, text: TextCondition | None, batch: int, like: Tensor) -> Tensor:
        """Prompt embeddings for the batch; zeros where there are none, all padding to Wan.

        Raises:
            ValueError: on another batch size or width, or a mask.
        """
        dim = self.config.text_dim
        if text is None:
            return like.new_zeros(batch, TEXT_LENGTH, dim)
        if text.mask is not None or text.pooled is not None:
            raise ValueError(
                "Wan attends to all text tokens: give `embeds` alone, with zeros as padding"
            )
        words = text.embeds.shape[1]
        if tuple(text.embeds.shape) != (batch, words, dim) or not words:
            raise ValueError(
                f"expected text embeddings ({batch}, words, {dim}), got {tuple(text.embeds.shape)}"
            )
        return text.embeds.to(like)

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`.

        Raises:
            ValueError: for more patches along an axis than the model has positions.
        """
        batch, steps, _, *sides = latents.shape
        grid = (steps, *(side // self.patch_size for side in sides))
        if max(grid) > self.config.rope_max_seq_len:
            raise ValueError(
                f"{self.family} has {self.config.rope_max_seq_len} positions along each axis, the "
                f"clip has {grid} patches in time, height and width: cut it to fit"
            )
        return {
            "hidden_states": latents.transpose(1, 2),
            "timestep": torch.full((batch,), timestep, device=latents.device),
            "encoder_hidden_states": self.text_embeds(text, batch, latents),
        }
