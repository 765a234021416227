"""HunyuanVideo: joint attention over video and text, in two streams first and in one later."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoRotaryPosEmbed
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Share, TextCondition, TransformerBackbone, check_depth
from gtsvj_reward.backbones.sharing import frozen_view

GUIDANCE_SCALE = 6.0
"""Guidance scale that a distilled model is told; the default of diffusers' pipeline."""

NULL_WORDS = 2
"""Length of the null text. On CPU a product with a single row rounds by where in memory the weights
lie, so that with one word equal weights would not always give equal scores."""

SETTINGS = (
    "attention_head_dim",
    "num_attention_heads",
    "patch_size",
    "qk_norm",
    "rope_axes_dim",
    "rope_theta",
)
"""Fields of the model's config that change hidden states without changing any weight."""


@lru_cache(maxsize=32)
def rotary_table(
    axes: tuple[int, ...], theta: float, grid: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables (token, head_dim), float32, for a (step, height, width) grid.

    Args:
        axes: parts of an attention head that turn with step, height and width.
        theta: base of the frequencies.
        grid: steps, and patches in height and width, of the clip.
        device: where the tables are made.
    """
    rope = HunyuanVideoRotaryPosEmbed(1, 1, list(axes), theta)
    # The tables outlive this call: made in inference mode, no later call could be differentiated.
    with torch.inference_mode(False), torch.no_grad():
        cos, sin = rope(torch.empty((1, 1, *grid), device=device))
    return cos, sin


def check_text_to_video(config: Mapping[str, Any]) -> None:
    """Refuse models that want an image, or several latent frames in a step.

    Raises:
        ImportError: with a diffusers older than 0.33.
        ValueError: saying what the config has.
    """
    if "image_condition_type" not in config:
        raise ImportError(
            "HunyuanVideo needs diffusers 0.33 or newer: 0.32 ignores `guidance_embeds` and masks "
            'text wrongly in batches. Run `pip install "diffusers>=0.33"`'
        )
    image = config["image_condition_type"]
    if config["in_channels"] != config["out_channels"] or image is not None:
        raise ValueError(
            f"a judge needs a text-to-video transformer; this one takes {config['in_channels']} "
            f"channels, gives {config['out_channels']} and has image_condition_type={image!r}, as "
            "image-to-video models do"
        )
    if config["patch_size_t"] != 1:
        raise ValueError(
            f"expected patch_size_t=1, as all HunyuanVideo models have, got "
            f"{config['patch_size_t']}: latent frames that do not fill a step would be lost"
        )


def check_valid_first(mask: Bool[Tensor, "batch words"]) -> None:
    """Refuse text masks that are not valid tokens, at least one, and then padding.

    Raises:
        ValueError: with the indices of the samples.
    """
    wrong = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1) | ~mask[:, 0]
    if wrong.any():
        rows = wrong.nonzero().flatten().tolist()
        raise ValueError(
            f"expected text masks of valid tokens, at least one, and then padding; {len(rows)} of "
            f"{len(mask)} are not, at indices {rows}: the model counts valid tokens and takes that "
            "many from the start, so pad prompts on the right"
        )


class HunyuanVideoBackbone(TransformerBackbone):
    """The first blocks of a `HunyuanVideoTransformer3DModel` that generates from text.

    Blocks are numbered as one list: the double-stream blocks, then the single-stream blocks. The
    timestep is diffusers' own: 1000 sigma, from 0 (clean) to 1000 (noise).

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to keep, all of them by default.
        share: makes a module over the weights of a part of the transformer.

    Raises:
        ImportError: with a diffusers older than 0.33.
        ValueError: for an image-to-video model, or one that patches time.
    """

    family = "HunyuanVideoTransformer3DModel"

    def __init__(
        self, transformer: Any, depth: int | None = None, *, share: Share = frozen_view
    ) -> None:
        super().__init__(transformer)
        config = transformer.config
        check_text_to_video(config)
        double, single = transformer.transformer_blocks, transformer.single_transformer_blocks
        self.depth = check_depth(depth, len(double) + len(single))
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size
        settings = {name: config[name] for name in SETTINGS}
        settings["rope_theta"] = float(config.rope_theta)  # files may hold 256 for 256.0
        settings["guidance_scale"] = GUIDANCE_SCALE if config.guidance_embeds else None
        self.settings = json.dumps(settings, sort_keys=True)
        self.rope = tuple(config.rope_axes_dim), float(config.rope_theta)
        self.text_dim: int = config.text_embed_dim
        self.pooled_dim: int = config.pooled_projection_dim
        self.x_embedder = share(transformer.x_embedder)
        self.context_embedder = share(transformer.context_embedder)
        self.time_text_embed = share(transformer.time_text_embed)
        self.transformer_blocks = nn.ModuleList(share(block) for block in double[: self.depth])
        self.single_transformer_blocks = nn.ModuleList(
            share(block) for block in single[: max(0, self.depth - len(double))]
        )

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
        """Full names of the video stream's q, k, v and out projections of one block.

        A double-stream block has a second set for the text stream, which is left alone. A
        single-stream block has one set for both, and its out projection, `proj_out`, is one with
        that of the MLP.
        """
        double = len(self.transformer_blocks)
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
            embeds = like.new_zeros(batch, NULL_WORDS, self.text_dim)
            mask = torch.arange(NULL_WORDS, device=like.device).expand(batch, -1) < 1
            return embeds, mask, like.new_zeros(batch, self.pooled_dim)
        if text.mask is None or text.pooled is None:
            raise ValueError(
                "HunyuanVideo needs `mask` and `pooled` beside `embeds`: all three are what the "
                "pipeline's `encode_prompt` returns"
            )
        words = max(1, text.embeds.shape[1])
        expected = (batch, words, self.text_dim), (batch, words), (batch, self.pooled_dim)
        got = tuple(tuple(part.shape) for part in (text.embeds, text.mask, text.pooled))
        if got != expected:
            raise ValueError(f"expected embeds, mask and pooled of shapes {expected}, got {got}")
        mask = text.mask.to(like.device, torch.bool)
        check_valid_first(mask)
        return text.embeds.to(like), mask, text.pooled.to(like)

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream; see `Backbone.forward`."""
        self.check_geometry(latents)
        latents = latents.to(self.x_embedder.proj.weight.dtype)
        batch, steps, _, height, width = latents.shape
        grid = (steps, height // self.patch_size, width // self.patch_size)
        words, valid, pooled = self.full_text(text, batch, latents)

        timesteps = torch.full((batch,), timestep, dtype=torch.float32, device=latents.device)
        # In the dtype of the weights, as in the pipeline: 6000 becomes 6016 in bfloat16.
        guidance = torch.full_like(pooled[:, 0], GUIDANCE_SCALE) * 1000.0
        modulation, _ = self.time_text_embed(timesteps, pooled, guidance)
        words = self.context_embedder(words, timesteps, valid)
        tokens = self.x_embedder(latents.transpose(1, 2))
        mask = torch.cat([valid.new_ones(batch, tokens.shape[1]), valid], dim=1)[:, None, None]
        rotary = rotary_table(*self.rope, grid, latents.device)
        for block in [*self.transformer_blocks, *self.single_transformer_blocks]:
            tokens, words = self.run_block(block, tokens, words, modulation, mask, rotary)
        hidden: Tensor = tokens.unflatten(1, (steps, grid[1] * grid[2]))
        return hidden
