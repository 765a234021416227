"""LTX-2: the video stream of a model of video and sound."""

from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.backbones.image import ImageCondition, check_single
from gtsvj_reward.backbones.ltx import LTXBackbone, words_and_bias
from gtsvj_reward.backbones.text import TextCondition

DEFAULT_FPS = 24.0
"""Frame rate that LTX-2's pipelines assume by default."""


class LTX2Backbone(LTXBackbone):
    """Watches the video stream of an `LTX2VideoTransformer3DModel`.

    `timestep` runs from 0 (clean) to 1000 (noise). The model's forward wants sound and its text as
    well: it is given one token of zeros for each, and told to keep the two streams apart
    (`isolate_modalities`), so that sound has no part in what leaves the video stream. In the
    pipeline the streams attend to each other: hidden states are those of a silent video.

    Positions are seconds and pixels, so that the frame rate of a clip changes its hidden states; it
    is part of the fingerprint. Prompts are what the pipeline's text connectors return for video.
    An image, if there is one, takes the place of the first latent frame, whose tokens get
    timestep 0.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to use, all of them by default.
        live: follow the transformer; see `TransformerBackbone`.
        fps: frame rate of the clips, in frames per second.

    Raises:
        ValueError: for a model that joins latents into patches, which no pipeline can feed.
    """

    family = "LTX2VideoTransformer3DModel"
    title = "LTX-2"
    deciding = (
        *("activation_fn", "attention_head_dim", "base_height", "base_width", "causal_offset"),
        *("norm_eps", "num_attention_heads", "pos_embed_max_pos", "qk_norm"),
        *("rope_double_precision", "rope_theta", "rope_type", "timestep_scale_multiplier"),
        "vae_scale_factors",
    )
    image_use = "also"
    given_frames = 1
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
        super().__init__(transformer, depth, live=live, fps=fps)

    def decisions(self, config: Any) -> dict[str, Any]:
        """See `TransformerBackbone.decisions`; LTX-2 has one way to place latents in time."""
        found = super().decisions(config)
        del found["causal_time"]
        return found

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
        words, bias = words_and_bias(text, batch, latents, self.text_widths()[0], model=self.title)
        level = torch.full((batch,), timestep, device=latents.device)
        return {
            "hidden_states": latents.movedim(2, -1).flatten(1, 3),
            "audio_hidden_states": latents.new_zeros(batch, 1, self.config.audio_in_channels),
            "encoder_hidden_states": words,
            "audio_encoder_hidden_states": latents.new_zeros(batch, 1, self.text_widths()[1]),
            "timestep": level,
            "audio_timestep": level,
            "sigma": level,
            "encoder_attention_mask": bias,
            "num_frames": steps,
            "height": height,
            "width": width,
            "fps": self.fps,
            "audio_num_frames": 1,
            "isolate_modalities": True,
        }

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`."""
        if image is None:
            return inputs
        check_single(image, self.family)
        video = torch.cat([image.fed(latents, 1), latents[:, 1:]], dim=1)
        batch, steps, _, height, width = latents.shape
        levels = inputs["timestep"][:, None].repeat(1, steps * height * width)
        levels[:, : height * width] = 0
        return {
            **inputs,
            "hidden_states": video.movedim(2, -1).flatten(1, 3),
            "timestep": levels.reshape(batch, -1),
        }
