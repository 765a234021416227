"""CogVideoX: 2B (sine-cosine positions), 5B (rotary) and 1.5 (rotary, patches in time)."""

from functools import lru_cache
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from gtsvj_reward.backbones.image import ImageCondition, check_single
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

OFFSET = 2.0
"""Value of `ofs` for the image-to-video model of 1.5."""


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
    """Watches a `CogVideoXTransformer3DModel` that generates from text, or from an image too.

    Image-to-video models take the image's latents as further channels of the first latent frame,
    and zeros for the others. With patches in time (1.5) the image belongs to the first frame of the
    padding, if there is any, as in the pipeline.

    Models that take further channels for another purpose are rejected.
    """

    family = "CogVideoXTransformer3DModel"
    deciding = (
        *("activation_fn", "attention_head_dim", "flip_sin_to_cos", "freq_shift"),
        *("max_text_seq_length", "norm_eps", "num_attention_heads", "patch_size"),
        *("patch_size_t", "sample_height", "sample_width", "spatial_interpolation_scale"),
        *("temporal_interpolation_scale", "timestep_activation_fn"),
        *("use_learned_positional_embeddings", "use_rotary_positional_embeddings"),
    )
    output_parts = ("norm_final", "norm_out", "proj_out")
    flow_matching = False

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        own = config.out_channels
        if config.in_channels not in (own, 2 * own):
            raise ValueError(
                "a judge needs a transformer that generates from text, or from text and an image; "
                f"this one takes {config.in_channels} channels and gives {own}, as models with "
                "further controls do"
            )
        super().configure(config)
        self.image_use = "never" if config.in_channels == own else "always"
        self.latent_channels = own
        self.patch_size_t = config.patch_size_t or 1

    def text_embeds(self, text: TextCondition | None, batch: int, like: Tensor) -> Tensor:
        """Prompt embeddings for the batch; zeros of the model's text length when there are none.

        Raises:
            ValueError: on another batch size or width, a mask, or, with sine-cosine positions,
                another length than the model was built for (its position table has that length).
        """
        length, dim = self.config.max_text_seq_length, self.config.text_embed_dim
        if text is None:
            return like.new_zeros(batch, length, dim)
        if text.mask is not None or text.pooled is not None:
            raise ValueError("CogVideoX attends to all text tokens: give `embeds` alone")
        rotary = self.config.use_rotary_positional_embeddings
        expected = (batch, text.embeds.shape[1] if rotary else length, dim)
        if tuple(text.embeds.shape) != expected:
            raise ValueError(
                f"expected text embeddings {expected}, got {tuple(text.embeds.shape)}"
                + ("" if rotary else "; pad prompts to the model's `max_text_seq_length`")
            )
        return text.embeds.to(like)

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`.

        Where the model patches time (1.5), a clip that does not fill the last patch is padded in
        front with its first latent, which is where the pipeline puts its padding.
        """
        steps, patch = self.steps(latents.shape[1]), self.patch_size
        padding = steps * self.patch_size_t - latents.shape[1]
        if padding:
            latents = torch.cat([latents[:, :1].expand(-1, padding, -1, -1, -1), latents], dim=1)
        batch, _, _, height, width = latents.shape
        rotary = None
        if self.config.use_rotary_positional_embeddings:
            rotary = rotary_table(
                self.config.attention_head_dim,
                (steps, height // patch, width // patch),
                (self.config.sample_height // patch, self.config.sample_width // patch),
                self.config.patch_size_t is not None,
                latents.device,
            )
        return {
            "hidden_states": latents,
            "encoder_hidden_states": self.text_embeds(text, batch, latents),
            "timestep": torch.full((batch,), timestep, device=latents.device),
            "image_rotary_emb": rotary,
        }

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`."""
        del latents
        if self.image_use == "never":
            return inputs
        video = inputs["hidden_states"]
        fed = torch.zeros_like(video)
        if image is not None:
            check_single(image, self.family)
            fed = image.fed(video, video.shape[1])
        offset = None
        if self.config.ofs_embed_dim is not None:
            offset = video.new_full((1,), OFFSET)
        return {**inputs, "hidden_states": torch.cat([video, fed], dim=2), "ofs": offset}

    def as_latents(self, output: Tensor, shape: torch.Size) -> Tensor:
        """See `Backbone.as_latents`; the padding in front is dropped."""
        return output[:, -shape[1] :]
