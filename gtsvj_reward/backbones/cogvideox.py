"""CogVideoX: 2B (sine-cosine positions), 5B (rotary) and 1.5 (rotary, patches in time)."""

import json
from functools import lru_cache
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Share, TextCondition, TransformerBackbone, check_depth
from gtsvj_reward.backbones.sharing import frozen_view

SETTINGS = (
    "activation_fn",
    "attention_head_dim",
    "flip_sin_to_cos",
    "freq_shift",
    "max_text_seq_length",
    "norm_eps",
    "num_attention_heads",
    "patch_size",
    "patch_size_t",
    "sample_height",
    "sample_width",
    "spatial_interpolation_scale",
    "temporal_interpolation_scale",
    "timestep_activation_fn",
    "use_learned_positional_embeddings",
    "use_rotary_positional_embeddings",
)
"""Fields of the model's config that change hidden states without changing any weight."""


def centred_crop(
    grid: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a (height, width) grid lies after it is scaled to fit, centred, into a base grid.

    CogVideoX 1.0 stretches its rotary positions over that rectangle, so that a clip of any size
    spans the positions the model was trained on.

    Returns:
        ((top, left), (bottom, right)) in patches of the base grid.
    """
    height, width = grid
    base_height, base_width = base
    if height / width > base_height / base_width:
        fitted = base_height, round(base_height / height * width)
    else:
        fitted = round(base_width / width * height), base_width
    top, left = (round((b - f) / 2.0) for b, f in zip(base, fitted, strict=True))
    return (top, left), (top + fitted[0], left + fitted[1])


@lru_cache(maxsize=32)
def rotary_table(
    head_dim: int,
    grid: tuple[int, int, int],
    base: tuple[int, int],
    patches_time: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables (token, head_dim) for a (step, height, width) grid of patches.

    Args:
        head_dim: width of an attention head.
        grid: steps, and patches in height and width, of the clip.
        base: patches in height and width of the model's own sample size.
        patches_time: True for CogVideoX 1.5, which counts patches instead of stretching them.
        device: where the tables are made; they are float32.
    """
    steps, height, width = grid
    if patches_time:
        # Counted positions do not depend on `max_size`, which only has to cover the clip.
        cover = (max(base[0], height), max(base[1], width))
        crop, grid_type = None, "slice"
    else:
        cover, crop, grid_type = None, centred_crop((height, width), base), "linspace"
    # Kept for later calls, which may record gradients: tables of inference mode could not be saved.
    with torch.inference_mode(False):
        cos, sin = get_3d_rotary_pos_embed(
            embed_dim=head_dim,
            crops_coords=crop,
            grid_size=(height, width),
            temporal_size=steps,
            grid_type=grid_type,
            max_size=cover,
            device=device,
        )
    return cos, sin


class CogVideoXBackbone(TransformerBackbone):
    """The first blocks of a `CogVideoXTransformer3DModel` that generates from text.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to keep, all of them by default.
        share: makes a module over the weights of a part of the transformer.

    Raises:
        ValueError: for an image-to-video model, which wants an image that a judge does not have.
    """

    family = "CogVideoXTransformer3DModel"
    null_words: int

    def __init__(
        self, transformer: Any, depth: int | None = None, *, share: Share = frozen_view
    ) -> None:
        super().__init__(transformer)
        config = transformer.config
        if config.in_channels != config.out_channels or config.ofs_embed_dim is not None:
            raise ValueError(
                f"a judge needs a text-to-video transformer; this one takes {config.in_channels} "
                f"channels and gives {config.out_channels}, as image-to-video models do"
            )
        self.depth = check_depth(depth, len(transformer.transformer_blocks))
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size
        self.patch_size_t = config.patch_size_t or 1
        self.patches_time = config.patch_size_t is not None
        self.settings = json.dumps({name: config[name] for name in SETTINGS}, sort_keys=True)
        self.rotary = config.use_rotary_positional_embeddings
        self.learned_positions = config.use_learned_positional_embeddings
        self.head_dim = config.attention_head_dim
        self.base_grid = (
            config.sample_height // config.patch_size,
            config.sample_width // config.patch_size,
        )
        self.text_length: int = config.max_text_seq_length
        self.null_words = self.text_length
        self.text_dim: int = config.text_embed_dim
        self.patch_embed = share(transformer.patch_embed)
        self.time_proj = share(transformer.time_proj)
        self.time_embedding = share(transformer.time_embedding)
        self.transformer_blocks = nn.ModuleList(
            share(block) for block in transformer.transformer_blocks[: self.depth]
        )

    def lora_targets(self, block: int) -> list[str]:
        """Full names of to_q, to_k, to_v and to_out.0 of one block."""
        prefix = f"transformer_blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    def shorten_null_text(self, words: int) -> None:
        """Make the null text `words` tokens long; see `Backbone.shorten_null_text`.

        Raises:
            ValueError: also for a model that learned a position for each text token.
        """
        if self.learned_positions:
            raise ValueError(
                f"`text_tokens` is {words}, but this model learned a position for each of its "
                f"{self.text_length} text tokens: leave it out"
            )
        super().shorten_null_text(words)

    def text_embeds(self, text: TextCondition | None, batch: int, like: Tensor) -> Tensor:
        """Prompt embeddings for the batch; `null_words` zeros when there are none.

        Raises:
            ValueError: on another batch size or width, a mask, or, with sine-cosine positions,
                another length than the model was built for (its position table has that length).
        """
        if text is None:
            return like.new_zeros(batch, self.null_words, self.text_dim)
        if text.mask is not None or text.pooled is not None:
            raise ValueError("CogVideoX attends to all text tokens: give `embeds` alone")
        words = self.text_length if not self.rotary else text.embeds.shape[1]
        expected = (batch, words, self.text_dim)
        if tuple(text.embeds.shape) != expected:
            raise ValueError(
                f"expected text embeddings {expected}, got {tuple(text.embeds.shape)}"
                + ("" if self.rotary else "; pad prompts to the model's `max_text_seq_length`")
            )
        return text.embeds.to(like)

    def embed(
        self,
        words: Float[Tensor, "batch words text_dim"],
        latents: Float[Tensor, "batch time channel height width"],
    ) -> tuple[Float[Tensor, "batch words dim"], Float[Tensor, "batch token dim"]]:
        """Text and video tokens with their sine-cosine positions, if the model has those.

        The table of positions has as many rows for text as the model was built for, all of them
        zero. A shorter null text is filled up for it and cut again, so that it is what a model of
        that text length makes of it.
        """
        count = words.shape[1]
        missing = 0 if self.rotary else self.text_length - count
        if missing:
            words = nn.functional.pad(words, (0, 0, 0, missing))
        joint = self.patch_embed(words, latents)  # (batch, words + step * tokens, dim)
        return joint[:, :count], joint[:, count + missing :]

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream; see `Backbone.forward`.

        Where the model patches time (1.5), a clip that does not fill the last patch is padded in
        front with its first latent, which is where the pipeline puts its padding.
        """
        self.check_geometry(latents)
        latents = latents.to(self.patch_embed.proj.weight.dtype)
        steps = self.steps(latents.shape[1])
        padding = steps * self.patch_size_t - latents.shape[1]
        if padding:
            latents = torch.cat([latents[:, :1].expand(-1, padding, -1, -1, -1), latents], dim=1)
        batch, _, _, height, width = latents.shape
        grid = (steps, height // self.patch_size, width // self.patch_size)

        timesteps = torch.full((batch,), timestep, device=latents.device)
        noise_level = self.time_embedding(self.time_proj(timesteps).to(latents.dtype))
        words, tokens = self.embed(self.text_embeds(text, batch, latents), latents)
        rotary = None
        if self.rotary:
            rotary = rotary_table(
                self.head_dim, grid, self.base_grid, self.patches_time, latents.device
            )
        for block in self.transformer_blocks:
            tokens, words = self.run_block(block, tokens, words, noise_level, rotary)
        hidden: Tensor = tokens.unflatten(1, (steps, grid[1] * grid[2]))
        return hidden
