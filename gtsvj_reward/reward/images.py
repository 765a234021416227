"""Reference images through the VAE, and image encoder, of the pipeline that they are for."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition
from gtsvj_reward.latents.space import LatentSpace

Encode = Callable[[Any, Any, Float[Tensor, "1 1 3 height width"], int], ImageCondition]
"""Pipeline, image, its pixels in [0, 1] at the size of the video, frames -> a batch of one."""

GREY = 0.5
"""What stands behind the image where a VAE sees a whole video: 0 in [-1, 1]."""


def cogvideox_image(
    pipe: Any, image: Any, pixels: Float[Tensor, "1 1 3 height width"], num_frames: int
) -> ImageCondition:
    """The latents of the image; those of 1.5 are divided where others are multiplied."""
    del image, num_frames
    config, space = pipe.vae.config, LatentSpace.from_vae(pipe.vae)
    factor = space.scaling_factor**-2 if config.invert_scale_latents else 1.0
    return ImageCondition(space.encode(pixels, pipe.vae), factor=factor)


def wan_image(
    pipe: Any, image: Any, pixels: Float[Tensor, "1 1 3 height width"], num_frames: int
) -> ImageCondition:
    """The latents of the image, but for the 5B model with grey frames behind it.

    For 2.1 what the image encoder says as well.

    Raises:
        ValueError: for a pipeline of 2.1 without its image encoder.
    """
    if pipe.config.expand_timesteps:
        return ImageCondition(LatentSpace.from_vae(pipe.vae).encode(pixels, pipe.vae))
    grey = torch.full_like(pixels, GREY).expand(-1, num_frames - 1, -1, -1, -1)
    latents = LatentSpace.from_vae(pipe.vae).encode(torch.cat([pixels, grey], dim=1), pipe.vae)
    if pipe.transformer is None or pipe.transformer.config.image_dim is None:
        return ImageCondition(latents)
    if pipe.image_encoder is None:
        raise ValueError(
            "the pipeline of Wan 2.1 has no image encoder: load it with one, or encode the images "
            "before it is dropped"
        )
    return ImageCondition(latents, pipe.encode_image(image, pipe.image_encoder.device))


def hunyuan_video_image(
    pipe: Any, image: Any, pixels: Float[Tensor, "1 1 3 height width"], num_frames: int
) -> ImageCondition:
    """The latents of the image; the image also is part of the text, which `text` must have."""
    del image, num_frames
    return ImageCondition(LatentSpace.from_vae(pipe.vae).encode(pixels, pipe.vae))


ENCODERS: dict[str, Encode] = {
    "CogVideoXImageToVideoPipeline": cogvideox_image,
    "HunyuanVideoImageToVideoPipeline": hunyuan_video_image,
    "WanImageToVideoPipeline": wan_image,
}
"""Class name of a pipeline -> what it feeds of one image."""


@torch.no_grad()
def image_of(
    pipe: Any, images: Sequence[Any] | Image, *, height: int, width: int, num_frames: int
) -> ImageCondition:
    """The transformer inputs that an image-to-video pipeline makes from images, one row each.

    Images are resized as the pipeline does. Where it draws from the VAE's posterior (CogVideoX),
    this takes the mode, so that the same image is always the same.

    Args:
        pipe: a diffusers pipeline of a known class.
        images: PIL images, or what else the pipeline takes as one.
        height: of the videos in pixels, like the next one.
        width: in pixels.
        num_frames: frames of the videos.

    Raises:
        ValueError: for a pipeline that is not known, no images, and a size or length that the VAE
            cannot hold.
    """
    name = type(pipe).__name__
    if name not in ENCODERS:
        raise ValueError(
            f"it is not known what a {name} feeds of an image; known pipelines: "
            f"{', '.join(ENCODERS)}. Make an `ImageCondition` yourself"
        )
    if not isinstance(images, list | tuple) or not images:
        raise ValueError(f"expected a list of images, one at least, got {type(images).__name__}")
    transformer = pipe.transformer if pipe.transformer is not None else pipe.transformer_2
    rows = []
    for image in images:
        scaled = pipe.video_processor.preprocess(image, height=height, width=width)
        if scaled.shape != (1, 3, height, width):
            raise ValueError(
                f"expected an image of {height}x{width} pixels, the pipeline made "
                f"{tuple(scaled.shape)} of it: give one PIL image for each clip, and a size in "
                "multiples of what its VAE holds"
            )
        rows.append(ENCODERS[name](pipe, image, scaled[:, None] / 2 + 0.5, num_frames))
    found = ImageCondition.cat(rows).to(torch.device("cpu"))
    return ImageCondition(found.latents, found.embeds, found.factor, type(transformer).__name__)
