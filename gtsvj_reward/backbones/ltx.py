"""LTX-Video: rotary positions in seconds and pixels."""

import json
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Share, TextCondition, TransformerBackbone, check_depth
from gtsvj_reward.backbones.sharing import frozen_view

SETTINGS = ("activation_fn", "attention_head_dim", "norm_eps", "num_attention_heads", "qk_norm")
"""Fields of the model's config that change hidden states without changing any weight."""

TEMPORAL_COMPRESSION = 8
"""Frames per latent after the first one, of every LTX VAE; the transformer does not know it."""

SPATIAL_COMPRESSION = 32
"""Pixels per latent in height and width, of every LTX VAE."""

DEFAULT_FPS = 25.0
"""Frame rate that LTX pipelines assume unless they are told another."""


@lru_cache(maxsize=4)  # a clip of the default size (161 frames of 512x704) has 121 MB of tables
def rotary_table(
    rope: nn.Module, grid: tuple[int, int, int], fps: float, causal_time: bool, device: torch.device
) -> tuple[Float[Tensor, "1 token dim"], Float[Tensor, "1 token dim"]]:
    """Cosine and sine tables, float32, for a grid of latents.

    Args:
        rope: the transformer's `rope`, which turns positions into angles.
        grid: latent frames, height and width of the clip.
        fps: frames per second of the video.
        causal_time: where latent k stands in time; see `LTXBackbone`.
        device: where the tables are made.
    """
    with torch.inference_mode(False):  # the next caller may record gradients
        like = torch.empty(1, 0, device=device)
        if not causal_time:
            scale = (TEMPORAL_COMPRESSION / fps, SPATIAL_COMPRESSION, SPATIAL_COMPRESSION)
            cos, sin = rope(like, *grid, rope_interpolation_scale=scale)
            return cos, sin
        frames, rows, columns = (torch.arange(size, device=device) for size in grid)
        first_frames = (frames * TEMPORAL_COMPRESSION + 1 - TEMPORAL_COMPRESSION).clamp(min=0)
        axes = (
            first_frames.float() * (1.0 / fps),
            rows.float() * SPATIAL_COMPRESSION,
            columns.float() * SPATIAL_COMPRESSION,
        )
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        cos, sin = rope(like, video_coords=coordinates[None])
        return cos, sin


class LTXBackbone(TransformerBackbone):
    """The first blocks of an `LTXVideoTransformer3DModel`.

    `timestep` runs from 0 (clean) to 1000 (noise), as the pipeline's scheduler gives it.

    Positions are seconds and pixels, so that the frame rate of a clip changes its hidden states.
    Latent k stands at 8k / fps seconds in `LTXPipeline` (0.9.0, 0.9.1), and at the first of its
    frames, max(0, 8k - 7) / fps, in `LTXConditionPipeline` (0.9.5 and later). The model's config
    does not say which one it was trained for. Both choices are part of the fingerprint.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to keep, all of them by default.
        share: makes a module over the weights of a part of the transformer.
        fps: frame rate of clips for which none is given, in frames per second.
        causal_time: True for the positions of `LTXConditionPipeline`; needs diffusers 0.33.

    Raises:
        ValueError: for a model that joins latents into patches, which no LTX pipeline can feed.
    """

    family = "LTXVideoTransformer3DModel"
    patch_size = 1

    def __init__(
        self,
        transformer: Any,
        depth: int | None = None,
        *,
        share: Share = frozen_view,
        fps: float = DEFAULT_FPS,
        causal_time: bool = False,
    ) -> None:
        super().__init__(transformer)
        config = transformer.config
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise ValueError(
                "expected an LTX transformer whose tokens are single latents, got `patch_size` "
                f"{config.patch_size} and `patch_size_t` {config.patch_size_t}: LTX pipelines "
                "cannot pack latents for it"
            )
        self.depth = check_depth(depth, len(transformer.transformer_blocks))
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.text_dim: int = config.caption_channels
        self.fps = check_fps(fps)
        self.causal_time = causal_time
        positions = {"fps": self.fps, "causal_time": causal_time}
        settings = {name: config[name] for name in SETTINGS}
        self.settings = json.dumps({**settings, **positions}, sort_keys=True)
        self.proj_in = share(transformer.proj_in)
        self.time_embed = share(transformer.time_embed)
        self.caption_projection = share(transformer.caption_projection)
        self.rope = share(transformer.rope)
        self.transformer_blocks = nn.ModuleList(
            share(block) for block in transformer.transformer_blocks[: self.depth]
        )

    def lora_targets(self, block: int) -> list[str]:
        """Full names of to_q, to_k, to_v and to_out.0 of a block's self-attention.

        The attention to the text is left alone: with the null condition it adds a constant.
        """
        prefix = f"transformer_blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    def text_inputs(
        self, text: TextCondition | None, batch: int, like: Tensor
    ) -> tuple[Float[Tensor, "batch words text_dim"], Float[Tensor, "batch 1 words"]]:
        """Prompt embeddings, and what is added to the attention to each word (0 or -10000).

        Without text it is one word of zeros: any number of equal words attracts the same mixture.

        Raises:
            ValueError: on another batch size or width, a pooled projection, or a text without a
                valid word, which the model would attend to as if all words were valid.
        """
        if text is None:
            return like.new_zeros(batch, 1, self.text_dim), like.new_zeros(batch, 1, 1)
        if text.pooled is not None:
            raise ValueError("LTX takes no pooled text: give `embeds` and `mask` alone")
        words = text.embeds.shape[1]
        mask = text.mask
        if mask is None:
            mask = torch.ones(batch, words, dtype=torch.bool, device=like.device)
        got = (tuple(text.embeds.shape), tuple(mask.shape))
        expected = ((batch, words, self.text_dim), (batch, words))
        if got != expected or words == 0:
            raise ValueError(
                f"expected text embeddings {expected[0]} and a mask {expected[1]} of at least one "
                f"word, got {got[0]} and {got[1]}"
            )
        valid = mask.any(dim=1)
        if not valid.is_meta and not valid.all():
            raise ValueError(
                f"{int((~valid).sum())} of {batch} text masks have no valid word, the first is "
                f"number {valid.tolist().index(False)}: pass no text for the null condition"
            )
        bias = (1 - mask.to(like)) * -10000.0
        return text.embeds.to(like), bias.unsqueeze(1)

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
        fps: float | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream; see `Backbone.forward`.

        Args:
            latents: scaled latents, not packed into tokens.
            timestep: noise level, 0 (clean) to 1000.
            text: prompt embeddings with their mask; no mask: all words are valid.
            fps: frames per second of the clips before encoding; None: `self.fps`.
        """
        self.check_geometry(latents)
        latents = latents.to(self.proj_in.weight.dtype)
        batch, steps, _, height, width = latents.shape
        rate = self.fps if fps is None else check_fps(fps)
        rotary = rotary_table(
            self.rope, (steps, height, width), rate, self.causal_time, latents.device
        )
        words, bias = self.text_inputs(text, batch, latents)
        tokens = self.proj_in(latents.movedim(2, -1).flatten(1, 3))  # (batch, step * tokens, dim)
        timesteps = torch.full((batch,), timestep, device=latents.device)
        noise_level, _ = self.time_embed(timesteps, batch_size=batch, hidden_dtype=tokens.dtype)
        noise_level = noise_level.unsqueeze(1)
        words = self.caption_projection(words)
        for block in self.transformer_blocks:
            tokens = self.run_block(block, tokens, words, noise_level, rotary, bias)
        hidden: Tensor = tokens.unflatten(1, (steps, height * width))
        return hidden


def check_fps(fps: float) -> float:
    """A frame rate as a float.

    Raises:
        ValueError: if it is not positive and finite.
    """
    if not 0 < fps < float("inf"):
        raise ValueError(f"`fps` must be positive frames per second, got {fps}")
    return float(fps)
