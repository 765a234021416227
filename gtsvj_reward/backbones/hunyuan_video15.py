"""HunyuanVideo 1.5: one stream of blocks, and inputs for two texts and an image, always."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.backbones.image import ImageCondition
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

NULL_WORDS = 2
"""Length of the null text, one valid token and one of padding; see `hunyuan_video.NULL_WORDS`."""

QUOTED_WORDS = 256
"""Tokens of the second text, ByT5's embeddings of quoted words: none here, all padding."""

IMAGE_TOKENS = 729
"""Tokens of the image encoder; all zero where there is no image."""


class HunyuanVideo15Backbone(TransformerBackbone):
    """Watches a `HunyuanVideo15Transformer3DModel`, of text or of image to video.

    The timestep is 1000 sigma, from 0 (clean) to 1000 (noise). The model takes as many channels of
    an image as of the video, and a mask: zeros where there is none. It also takes what an image
    encoder says, and looks at the whole batch for whether that is all zero, so that text and image
    to video must never share a forward pass. The second text is empty: what a prompt has in
    quotation marks is read as the rest of it, without ByT5.
    """

    family = "HunyuanVideo15Transformer3DModel"
    attention = "transformer_blocks.{}.attn"
    deciding = (
        *("attention_head_dim", "num_attention_heads", "patch_size", "qk_norm"),
        *("rope_axes_dim", "rope_theta", "task_type"),
    )

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`.

        Raises:
            ValueError: for distilled models that want a second timestep, and other channels.
        """
        own = config.out_channels
        if config.in_channels != 2 * own + 1 or config.use_meanflow:
            raise ValueError(
                f"expected a HunyuanVideo 1.5 transformer of {2 * own + 1} channels (video, image "
                f"and mask) without a second timestep, got {config.in_channels} channels and "
                f"use_meanflow={config.use_meanflow}"
            )
        if config.patch_size_t != 1:
            raise ValueError(f"expected patch_size_t=1, got {config.patch_size_t}")
        super().configure(config)
        self.latent_channels = own
        self.image_use = "always" if config.task_type == "i2v" else "never"

    def decisions(self, config: Any) -> dict[str, Any]:
        """See `TransformerBackbone.decisions`."""
        return {**super().decisions(config), "rope_theta": float(config.rope_theta)}

    def text_inputs(
        self, text: TextCondition | None, batch: int, like: Tensor
    ) -> tuple[Float[Tensor, "batch words text_dim"], Bool[Tensor, "batch words"]]:
        """Prompt embeddings and mask; the null condition is one valid token of zeros.

        Raises:
            ValueError: for a pooled projection, a missing mask, another batch size or width, or a
                text without a valid word.
        """
        dim = self.config.text_embed_dim
        if text is None:
            mask = torch.arange(NULL_WORDS, device=like.device).expand(batch, -1) < 1
            return like.new_zeros(batch, NULL_WORDS, dim), mask
        if text.mask is None or text.pooled is not None:
            raise ValueError(
                "HunyuanVideo 1.5 needs `embeds` and `mask`, and no `pooled`: the first two that "
                "the pipeline's `encode_prompt` returns"
            )
        words = text.embeds.shape[1]
        got = tuple(text.embeds.shape), tuple(text.mask.shape)
        if got != ((batch, words, dim), (batch, words)):
            raise ValueError(
                f"expected embeds and mask of shapes ({batch}, words, {dim}) and ({batch}, words), "
                f"got {got[0]} and {got[1]}"
            )
        mask = text.mask.to(like.device, torch.bool)
        if not mask.is_meta and not mask.any(dim=1).all():
            raise ValueError("a text mask has no valid word: pass no text for the null condition")
        return text.embeds.to(like), mask

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`; of text to video, zeros in place of an image."""
        batch = len(latents)
        words, valid = self.text_inputs(text, batch, latents)
        nothing = torch.cat([torch.zeros_like(latents), torch.zeros_like(latents[:, :, :1])], dim=2)
        quoted = latents.new_zeros(batch, QUOTED_WORDS, self.config.text_embed_2_dim)
        return {
            "hidden_states": torch.cat([latents, nothing], dim=2).transpose(1, 2),
            "timestep": torch.full((batch,), timestep, device=latents.device).to(latents),
            "encoder_hidden_states": words,
            "encoder_attention_mask": valid,
            "encoder_hidden_states_2": quoted,
            "encoder_attention_mask_2": torch.zeros_like(quoted[..., 0], dtype=torch.bool),
            "image_embeds": latents.new_zeros(batch, IMAGE_TOKENS, self.config.image_embed_dim),
        }

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`.

        Raises:
            ValueError: for latents of several frames, and embeddings that are missing, of another
                shape, or all zero, which the model would take for text to video.
        """
        if image is None:
            return inputs
        width, embeds = self.config.image_embed_dim, image.embeds
        if image.latents.shape[1] != 1 or embeds is None:
            raise ValueError(
                "HunyuanVideo 1.5 is fed one latent frame of the image, and `embeds` of its image "
                f"encoder; got {image.latents.shape[1]} frames"
                f"{' without embeds' if embeds is None else ''}"
            )
        tokens = embeds.shape[1]
        if tuple(embeds.shape) != (len(latents), tokens, width) or not tokens:
            raise ValueError(
                f"expected image embeddings ({len(latents)}, tokens, {width}), got "
                f"{tuple(embeds.shape)}"
            )
        if not embeds.is_meta and not embeds.flatten(1).any(dim=1).all():
            raise ValueError(
                "image embeddings of zeros mean text to video to this model, which must not share "
                "a batch with image to video: encode the image, or leave `image` out for all clips"
            )
        mask = torch.zeros_like(latents[:, :, :1])
        mask[:, 0] = 1
        parts = [latents, image.fed(latents, latents.shape[1]), mask]
        return {
            **inputs,
            "hidden_states": torch.cat(parts, dim=2).transpose(1, 2),
            "image_embeds": embeds.to(latents),
        }
