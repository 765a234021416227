"""Wan 2.1 and 2.2: text-to-video models, and the 5B model that takes text or an image."""

from typing import Any

import torch
from torch import Tensor, nn

from gtsvj_reward.backbones.image import ImageCondition, ImageUse, check_single
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

TEXT_LENGTH = 512
"""Text tokens of the null condition: what the pipelines pad prompts to, with zeros."""


IMAGE_TOKENS = 257
"""Tokens of the null image: what the image encoder of Wan 2.1 makes of any."""

MASK_CHANNELS = 4
"""Channels that say which frames are given, one for each frame of a latent."""


FIRST_FRAME_CHANNELS = 48
"""Of the latents of 2.2-5B, the one model that takes an image in place of the first frame."""


def image_use_of(config: Any) -> ImageUse:
    """Whether a model is fed an image: beside the noisy video, with a mask, or in its place.

    Raises:
        ValueError: for models of other tasks, and patches that a judge cannot read.
    """
    own = config.out_channels or config.in_channels
    if config.in_channels not in (own, 2 * own + MASK_CHANNELS):
        raise ValueError(
            "a judge needs a transformer that generates from text, or from text and an image; "
            f"this one takes {config.in_channels} channels and gives {own}"
        )
    if config.pos_embed_seq_len is not None:
        raise ValueError(
            "this model generates from a first and a last image (`pos_embed_seq_len` "
            f"{config.pos_embed_seq_len}): a judge has no last image"
        )
    added = {name: config[name] for name in ("added_kv_proj_dim", "image_dim") if config[name]}
    if len(added) == 1 or (added and config.in_channels == own):
        raise ValueError(
            f"this model has {added} and takes {config.in_channels} channels, which no pipeline of "
            "Wan feeds"
        )
    step, height, width = config.patch_size
    if step != 1 or height != width:
        raise ValueError(f"expected patches of (1, p, p) latents, got {tuple(config.patch_size)}")
    if config.in_channels != own:
        return "always"
    return "also" if own == FIRST_FRAME_CHANNELS else "never"


class WanBackbone(TransformerBackbone):
    """Watches a `WanTransformer3DModel` that generates from text, or from an image too.

    `timestep` runs from 0 (clean) to 1000 (noise), as in the scheduler's `timesteps`. There is
    one for the whole clip: the 5B model's pipeline writes it out for every token, which without a
    conditioning image is the same number. Prompts are embeddings padded with zeros, as
    `WanPipeline.encode_prompt` returns them; the model attends to the padding too.

    Image-to-video models of 36 channels (2.1, and both experts of 2.2) take the image, and the grey
    frames that its pipeline puts behind it, as further channels, with a mask of what is given. That
    of 2.1 attends to the image's embeddings as well. The 5B model of 2.2 takes an image in place of
    the first latent frame, or none. Models with a last image are rejected.
    """

    family = "WanTransformer3DModel"
    deciding = ("attention_head_dim", "eps", "num_attention_heads")
    attention = "blocks.{}.attn1"
    output_parts = ("norm_out", "proj_out", "scale_shift_table")

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        self.image_use = image_use_of(config)
        super().configure(config)
        self.given_frames = int(self.image_use == "also")
        self.latent_channels = config.out_channels or config.in_channels
        self.patch_size = config.patch_size[1]

    @staticmethod
    def blocks_of(model: Any) -> list[nn.Module]:
        """See `TransformerBackbone.blocks_of`."""
        return list(model.blocks)

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
        if self.config.image_dim is not None and words != TEXT_LENGTH:
            raise ValueError(
                f"the image-to-video model of Wan 2.1 takes {TEXT_LENGTH} text tokens and reads "
                f"any before them as the image; got {words}: pad prompts with zeros"
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

    def with_image(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.with_image`."""
        if self.image_use == "also":
            return inputs if image is None else self.with_first_frame(inputs, latents, image)
        if self.image_use == "never":
            return inputs
        video = inputs["hidden_states"]
        batch, frames, _, *sides = latents.shape
        fed, mask = (
            torch.zeros_like(latents),
            latents.new_zeros(batch, frames, MASK_CHANNELS, *sides),
        )
        if image is not None:
            self.check_frames(image, latents)
            fed = image.fed(latents, frames)
            mask[:, 0] = 1
        channels = torch.cat([mask, fed], dim=2).transpose(1, 2)
        inputs = {**inputs, "hidden_states": torch.cat([video, channels], dim=1)}
        if self.config.image_dim is not None:
            inputs["encoder_hidden_states_image"] = self.image_embeds(image, latents)
        return inputs

    def with_first_frame(
        self, inputs: dict[str, Any], latents: Tensor, image: ImageCondition
    ) -> dict[str, Any]:
        """The image in place of the first latent frame, whose tokens get timestep 0."""
        check_single(image, self.family)
        _, frames, _, height, width = latents.shape
        video = torch.cat([image.fed(latents, 1), latents[:, 1:]], dim=1)
        tokens = (height // self.patch_size) * (width // self.patch_size)
        timestep = inputs["timestep"][:, None].repeat(1, frames * tokens)
        timestep[:, :tokens] = 0
        return {**inputs, "hidden_states": video.transpose(1, 2), "timestep": timestep}

    def check_frames(self, image: ImageCondition, latents: Tensor) -> None:
        """Reject images without the grey frames behind them that the clip's length needs."""
        given, frames = image.latents.shape[1], latents.shape[1]
        if given != frames:
            raise ValueError(
                f"this model takes latents of the image followed by grey frames, as long as the "
                f"clip: it has {frames} latent frames, the image {given}. Encode it with "
                "`image_of(pipe, images, num_frames=...)`, for the clip's length"
            )

    def image_embeds(self, image: ImageCondition | None, like: Tensor) -> Tensor:
        """What the image encoder said; zeros without an image.

        Raises:
            ValueError: for a missing part, or another batch size or width.
        """
        width = self.config.image_dim
        if image is None:
            return like.new_zeros(len(like), IMAGE_TOKENS, width)
        if image.embeds is None:
            raise ValueError(
                "the image-to-video model of Wan 2.1 attends to the image's embeddings: give "
                "`embeds` beside `latents`, as `image_of(pipe, images, ...)` does"
            )
        tokens = image.embeds.shape[1]
        if tuple(image.embeds.shape) != (len(like), tokens, width) or not tokens:
            raise ValueError(
                f"expected image embeddings ({len(like)}, tokens, {width}), got "
                f"{tuple(image.embeds.shape)}"
            )
        return image.embeds.to(like)
