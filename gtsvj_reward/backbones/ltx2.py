"""LTX-2: the video stream of a model of video and sound."""

import json
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.backbones.ltx import words_and_bias
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

SETTINGS = (
    "activation_fn",
    "attention_head_dim",
    "base_height",
    "base_width",
    "causal_offset",
    "norm_eps",
    "num_attention_heads",
    "pos_embed_max_pos",
    "qk_norm",
    "rope_double_precision",
    "rope_theta",
    "rope_type",
    "timestep_scale_multiplier",
    "vae_scale_factors",
)
"""Fields of the model's config that change hidden states without changing any weight."""

DEFAULT_FPS = 24.0
"""Frame rate that LTX-2's pipelines assume unless they are told another."""


class LTX2Backbone(TransformerBackbone):
    """Watches the video stream of an `LTX2VideoTransformer3DModel`.

    `timestep` runs from 0 (clean) to 1000 (noise). The model's forward wants sound and its text as
    well: it is given one token of zeros for each, and told to keep the two streams apart
    (`isolate_modalities`), so that sound has no part in what leaves the video stream. In the
    pipeline the streams attend to each other: hidden states are those of a silent video.

    Positions are seconds and pixels, so that the frame rate of a clip changes its hidden states; it
    is part of the fingerprint. Prompts are what the pipeline's text connectors return for video.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to use, all of them by default.
        live: follow the transformer; see `TransformerBackbone`.
        fps: frame rate of the clips, in frames per second.

    Raises:
        ValueError: for a model that joins latents into patches, which no pipeline can feed.
    """

    family = "LTX2VideoTransformer3DModel"
    patch_size = 1
    output_parts = (
        *("norm_out", "proj_out", "scale_shift_table"),
        *("audio_norm_out", "audio_proj_out", "audio_scale_shift_table"),
    )

    def __init__(
        self,
        transformer: Any,
        depth: int | None = None,
        *,
        live: bool = False,
        fps: float = DEFAULT_FPS,
    ) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"`fps` must be positive frames per second, got {fps}")
        self.fps = float(fps)
        super().__init__(transformer, depth, live=live)

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise ValueError(
                "expected an LTX-2 transformer whose tokens are single latents, got `patch_size` "
                f"{config.patch_size} and `patch_size_t` {config.patch_size_t}"
            )
        self.config = config
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        settings = {name: config[name] for name in SETTINGS}
        self.settings = json.dumps({**settings, "fps": self.fps}, sort_keys=True)

    def text_widths(self) -> tuple[int, int]:
        """Width of the prompt embeddings for video and for sound."""
        if self.config.use_prompt_embeddings:
            return self.config.caption_channels, self.config.caption_channels
        return self.config.cross_attention_dim, self.config.audio_cross_attention_dim

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`; sound is one token of zeros, which the video does not see."""
        batch, steps, _, height, width = latents.shape
        words, bias = words_and_bias(text, batch, latents, self.text_widths()[0], model="LTX-2")
        level = torch.full((batch,), timestep, device=latents.device)
        return {
            "hidden_states": latents.movedim(2, -1).flatten(1, 3),
            "audio_hidden_states": latents.new_zeros(batch, 1, self.config.audio_in_channels),
            "encoder_hidden_states": words,
            "audio_encoder_hidden_states": latents.new_zeros(batch, 1, self.text_widths()[1]),
            "timestep": level,
            "sigma": level,
            "encoder_attention_mask": bias,
            "num_frames": steps,
            "height": height,
            "width": width,
            "fps": self.fps,
            "audio_num_frames": 1,
            "isolate_modalities": True,
        }

    def as_latents(self, output: Tensor, shape: torch.Size) -> Tensor:
        """See `Backbone.as_latents`; tokens are single latents."""
        _, steps, _, height, width = shape
        latents: Tensor = output.unflatten(1, (steps, height, width)).movedim(-1, 2)
        return latents
