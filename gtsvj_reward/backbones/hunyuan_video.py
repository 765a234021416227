"""HunyuanVideo: joint attention over video and text, in two streams first and in one later."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from gtsvj_reward.backbones.image import ImageCondition, check_single
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

GUIDANCE_SCALE = 6.0
"""Guidance scale that a distilled model gets; the default of diffusers' pipeline."""

CONCAT = "latent_concat"
"""Image condition of models that take an image, and a mask, as further channels."""

NULL_WORDS = 2
"""Length of the null text. On CPU a product with a single row rounds by where in memory the weights
lie, so that with one word equal weights would not always give equal scores."""


def check_task(config: Mapping[str, Any]) -> None:
    """Reject models of other tasks, or with several latent frames in a step."""
    image, own = config["image_condition_type"], config["out_channels"]
    expected = 2 * own + 1 if image == CONCAT else own
    if config["in_channels"] != expected:
        raise ValueError(
            "a judge needs a transformer that generates from text, or from an image as diffusers' "
            f"pipeline feeds it, which is {expected} channels for image_condition_type={image!r}; "
            f"this one takes {config['in_channels']} channels, gives {own}"
        )
    if config["patch_size_t"] != 1:
        raise ValueError(
            f"expected patch_size_t=1, as all HunyuanVideo models have, got "
            f"{config['patch_size_t']}: latent frames that do not fill a step would be lost"
        )


def check_valid_first(mask: Bool[Tensor, "batch words"]) -> None:
    """Reject text masks that are not valid tokens, at least one, and then padding."""
    wrong = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1) | ~mask[:, 0]
    if wrong.any():
        rows = wrong.nonzero().flatten().tolist()
        raise ValueError(
            f"expected text masks of valid tokens, at least one, and then padding; {len(rows)} of "
            f"{len(mask)} are not, at indices {rows}: the model counts valid tokens and takes that "
            "many from the start, so pad prompts on the right"
        )


class HunyuanVideoBackbone(TransformerBackbone):
    """Watches a `HunyuanVideoTransformer3DModel` that generates from text, or from an image too.

    Blocks are numbered as one list: the double-stream blocks, then the single-stream blocks. The
    timestep is diffusers' own: 1000 sigma, from 0 (clean) to 1000 (noise).

    Image-to-video models with `token_replace` take an image in place of the first latent frame,
    whose tokens get timestep 0. Those with `latent_concat` take it beside the first latent
    frame, with a mask; their pipeline drops that frame from what it returns, and clips must have
    it. Prompts of both are encoded with the image. Models that patch time are rejected.
    """

    family = "HunyuanVideoTransformer3DModel"
    deciding = (
        *("attention_head_dim", "num_attention_heads", "patch_size", "qk_norm"),
        *("rope_axes_dim", "rope_theta"),
    )

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        check_task(config)
        super().configure(config)
        self.image_use = "always" if config.image_condition_type else "never"
        self.given_frames = int(config.image_condition_type == "token_replace")
        self.latent_channels = config.out_channels

    def decisions(self, config: Any) -> dict[str, Any]:
        """See `TransformerBackbone.decisions`."""
        told = GUIDANCE_SCALE if config.guidance_embeds else None
        theta = float(config.rope_theta)  # files may hold 256 for 256.0
        return {**super().decisions(config), "rope_theta": theta, "guidance_scale": told}

    @staticmethod
    def blocks_of(model: Any) -> list[nn.Module]:
        """See `TransformerBackbone.blocks_of`."""
        return [*model.transformer_blocks, *model.single_transformer_blocks]

    @classmethod
    def block_count(cls, config: Mapping[str, Any]) -> int:
        """Double-stream and single-stream blocks of a model, from its config."""
        return int(config["num_layers"]) + int(config["num_single_layers"])

    @classmethod
    def truncated(cls, config: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The config of a model that has the first `depth` blocks only."""
        double = min(depth, int(config["num_layers"]))
        return {**config, "num_layers": double, "num_single_layers": depth - double}

    def lora_targets(self, block: int) -> list[str]:
        """Names of the video stream's q, k, v and out projections of one block.

        A double-stream block has a second set for the text stream, which is left alone. A
        single-stream block has one set for both, and its out projection, `proj_out`, is one with
        that of the MLP.
        """
        double = self.config.num_layers
        if block < double:
            prefix, out = f"transformer_blocks.{block}", "attn.to_out.0"
        else:
            prefix, out = f"single_transformer_blocks.{block - double}", "proj_out"
        return [f"{prefix}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", out)]

    def full_text(
        self, text: TextCondition | None, batch: int, like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings, mask and pooled projection for the batch.

        The null condition is one valid token of zeros and one of padding, which has no part in
        the attention; no valid token at all gives NaN.

        Raises:
            ValueError: for a missing part, another batch size or width, or a mask that does not
                begin with a valid token or has one after padding.
        """
        if text is None:
            embeds = like.new_zeros(batch, NULL_WORDS, self.config.text_embed_dim)
            mask = torch.arange(NULL_WORDS, device=like.device).expand(batch, -1) < 1
            return embeds, mask, like.new_zeros(batch, self.config.pooled_projection_dim)
        if text.mask is None or text.pooled is None:
            raise ValueError(
                "HunyuanVideo needs `mask` and `pooled` beside `embeds`: all three are what the "
                "pipeline's `encode_prompt` returns"
            )
        words = max(1, text.embeds.shape[1])
        expected = (
            (batch, words, self.config.text_embed_dim),
            (batch, words),
            (batch, self.config.pooled_projection_dim),
        )
        got = tuple(tuple(part.shape) for part in (text.embeds, text.mask, text.pooled))
        if got != expected:
            raise ValueError(f"expected embeds, mask and pooled of shapes {expected}, got {got}")
        mask = text.mask.to(like.device, torch.bool)
        check_valid_first(mask)
        return text.embeds.to(like), mask, text.pooled.to(like)

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`."""
        batch = len(latents)
        words, valid, pooled = self.full_text(text, batch, latents)
        return {
            "hidden_states": latents.transpose(1, 2),
            "timestep": torch.full((batch,), timestep, dtype=torch.float32, device=latents.device),
            "encoder_hidden_states": words,
            "encoder_attention_mask": valid,
            "pooled_projections": pooled,
            # In the dtype of the weights, as in the pipeline: 6000 becomes 6016 in bfloat16.
            "guidance": torch.full_like(pooled[:, 0], GUIDANCE_SCALE) * 1000.0,
        }

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`."""
        if self.image_use == "never":
            return inputs
        if self.config.image_condition_type == CONCAT:
            given, mask = torch.zeros_like(latents), torch.zeros_like(latents[:, :, :1])
            if image is not None:
                check_single(image, self.family)
                given, mask[:, 0] = image.fed(latents, latents.shape[1]), 1
            fed = torch.cat([latents, given, mask], dim=2)
            return {**inputs, "hidden_states": fed.transpose(1, 2)}
        first = torch.zeros_like(latents[:, :1])
        if image is not None:
            check_single(image, self.family)
            first = image.fed(latents, 1)
        video = torch.cat([first, latents[:, 1:]], dim=1)
        return {**inputs, "hidden_states": video.transpose(1, 2)}
