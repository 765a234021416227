"""Reference images through the VAE, and image encoder, of the pipeline that they are for."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import ImageCondition
from gtsvj_reward.backbones.load import config_folder, settings_folder
from gtsvj_reward.dtypes import weights_in
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.base import AnyReward, as_reward

EncodeImage = Callable[
    ["ImageEncoder", Any, Float[Tensor, "1 1 3 height width"], int], ImageCondition
]
"""Encoder, image, its pixels in [0, 1] at the size of the video, frames -> a batch of one."""

PrepareImage = Callable[["ImageEncoder", Any, int, int], Any]
"""Encoder, image, height, width -> the image as the pipeline's processor takes it."""

GREY = 0.5
"""What stands behind the image where a VAE sees a whole video: 0 in [-1, 1]."""

VISION = ("vae", "image_encoder", "image_processor", "feature_extractor", "scheduler", "guider")
"""Parts of a pipeline that encode images, or that it cannot be made without."""


def first_frame(
    encoder: "ImageEncoder",
    image: Any,
    pixels: Float[Tensor, "1 1 3 height width"],
    num_frames: int,
) -> ImageCondition:
    """The latents of the image alone."""
    del image, num_frames
    vae = encoder.pipe.vae
    return ImageCondition(LatentSpace.from_vae(vae).encode(pixels, vae))


def cogvideox_image(
    encoder: "ImageEncoder",
    image: Any,
    pixels: Float[Tensor, "1 1 3 height width"],
    num_frames: int,
) -> ImageCondition:
    """The latents of the image; those of 1.5 are divided where others are multiplied."""
    vae = encoder.pipe.vae
    inverted = vae.config.invert_scale_latents
    factor = LatentSpace.from_vae(vae).scaling_factor ** -2 if inverted else 1.0
    latents = first_frame(encoder, image, pixels, num_frames).latents
    return ImageCondition(latents, factor=factor)


def wan_image(
    encoder: "ImageEncoder",
    image: Any,
    pixels: Float[Tensor, "1 1 3 height width"],
    num_frames: int,
) -> ImageCondition:
    """The latents of the image, but for the 5B model with grey frames behind it.

    For 2.1 what the image encoder says as well.
    """
    pipe = encoder.pipe
    if pipe.config.expand_timesteps:
        return first_frame(encoder, image, pixels, num_frames)
    grey = torch.full_like(pixels, GREY).expand(-1, num_frames - 1, -1, -1, -1)
    latents = LatentSpace.from_vae(pipe.vae).encode(torch.cat([pixels, grey], dim=1), pipe.vae)
    if encoder.config.get("image_dim") is None:
        return ImageCondition(latents)
    vision = encoder.vision("Wan 2.1")
    return ImageCondition(latents, pipe.encode_image(image, vision.device))


def hunyuan_video15_image(
    encoder: "ImageEncoder",
    image: Any,
    pixels: Float[Tensor, "1 1 3 height width"],
    num_frames: int,
) -> ImageCondition:
    """The latents of the image, and what the image encoder says of it."""
    vision = encoder.vision("HunyuanVideo 1.5")
    embeds = encoder.pipe.encode_image(image, 1, vision.device, vision.dtype)
    return ImageCondition(first_frame(encoder, image, pixels, num_frames).latents, embeds)


def cropped(encoder: "ImageEncoder", image: Any, height: int, width: int) -> Any:
    """The middle of an image, at the size of the video."""
    processor = encoder.pipe.video_processor
    return processor.resize(image, height=height, width=width, resize_mode="crop")


def recompressed(encoder: "ImageEncoder", image: Any, height: int, width: int) -> Any:
    """An image after the H.264 compression that LTX-2's pipeline gives it, as in its training.

    Raises:
        ValueError: for a pipeline that is not known to go with one of its text encoders.
        TypeError: for what is no PIL image.
    """
    from diffusers.pipelines.ltx2.utils import (
        DEFAULT_IMAGE_CRF,
        LTX2_5_IMAGE_CRF,
        apply_image_conditioning_crf,
    )

    del height, width
    if encoder.text_type is None:
        raise ValueError(
            "how much LTX-2's pipeline compresses an image depends on its text encoder, which this "
            "pipeline lacks: load it with its text encoder"
        )
    if not isinstance(image, Image.Image):
        raise TypeError(f"LTX-2 takes PIL images, got a {type(image).__name__}")
    newer = encoder.text_type in ("gemma4_unified", "gemma4")
    crf = LTX2_5_IMAGE_CRF if newer else DEFAULT_IMAGE_CRF
    return Image.fromarray(apply_image_conditioning_crf(np.array(image.convert("RGB")), crf))


ENCODERS: dict[str, EncodeImage] = {
    "CogVideoXImageToVideoPipeline": cogvideox_image,
    "HunyuanVideo15ImageToVideoPipeline": hunyuan_video15_image,
    "HunyuanVideoImageToVideoPipeline": first_frame,
    "LTX2ImageToVideoPipeline": first_frame,
    "WanImageToVideoPipeline": wan_image,
}
"""Class name of a pipeline -> what it feeds of one image."""

PREPARE: dict[str, PrepareImage] = {
    "HunyuanVideo15ImageToVideoPipeline": cropped,
    "LTX2ImageToVideoPipeline": recompressed,
}
"""Class name of a pipeline -> what it does to an image before its processor resizes it."""


class ImageEncoder:
    """The transformer inputs that an image-to-video pipeline makes from images.

    Images are resized as the pipeline does. Where it draws from the VAE's posterior (CogVideoX),
    this takes the mode, so that the same image is always the same.

    Attributes:
        family: class name of the transformer.

    Args:
        pipe: a diffusers pipeline of a known class; transformer and text encoder may be left out.
        transformer_config: `config.json` of the transformer, for a pipeline without it.
        text_type: `model_type` in the config of the text encoder, for a pipeline without it.

    Raises:
        ValueError: for a pipeline that is not known, or neither transformer nor its config.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        transformer_config: Mapping[str, Any] | None = None,
        text_type: str | None = None,
    ) -> None:
        self.name = type(pipe).__name__
        if self.name not in ENCODERS:
            raise ValueError(
                f"cannot encode images with a {self.name}; known pipelines: "
                f"{', '.join(ENCODERS)}. Make an `ImageCondition` yourself"
            )
        parts = pipe.components
        transformer = parts["transformer"] or parts.get("transformer_2")
        if transformer_config is not None:
            self.config = dict(transformer_config)
            self.family = str(self.config["_class_name"])
        elif transformer is not None:
            self.config, self.family = dict(transformer.config), type(transformer).__name__
        else:
            raise ValueError(
                "the pipeline has no transformer: give `transformer_config`, the config of it"
            )
        self.pipe, self.text_type = pipe, text_type
        if text_type is None and parts.get("text_encoder") is not None:
            self.text_type = parts["text_encoder"].config.model_type

    @property
    def variant(self) -> str:
        """What tells encoders of one family and VAE apart."""
        config = self.pipe.vae.config
        inverted, dim = config.get("invert_scale_latents", False), self.config.get("image_dim")
        return f"{self.name} {inverted} {dim} {self.text_type}"

    @torch.no_grad()
    def __call__(
        self, images: Sequence[Any] | Image.Image, *, height: int, width: int, num_frames: int
    ) -> ImageCondition:
        """The condition of some images, one row each, on the CPU.

        Args:
            images: PIL images, or what else the pipeline takes as one.
            height: of the videos in pixels, like the next one.
            width: in pixels.
            num_frames: frames of the videos.

        Raises:
            ValueError: for no images, and a size or length that the VAE cannot hold.
        """
        if not isinstance(images, list | tuple) or not images:
            raise ValueError(f"expected a list of at least one image, got {type(images).__name__}")
        rows = [self.encode(image, height, width, num_frames) for image in images]
        found = ImageCondition.cat(rows).to(torch.device("cpu"))
        return ImageCondition(found.latents, found.embeds, found.factor, self.family)

    def encode(self, image: Any, height: int, width: int, num_frames: int) -> ImageCondition:
        """The condition of one image."""
        if self.name in PREPARE:
            image = PREPARE[self.name](self, image, height, width)
        scaled = self.pipe.video_processor.preprocess(image, height=height, width=width)
        if scaled.shape != (1, 3, height, width):
            raise ValueError(
                f"expected an image of {height}x{width} pixels, the pipeline made "
                f"{tuple(scaled.shape)} of it: give one PIL image for each clip, and a size in "
                "multiples of what its VAE holds"
            )
        return ENCODERS[self.name](self, image, scaled[:, None] / 2 + 0.5, num_frames)

    def vision(self, model: str) -> Any:
        """The pipeline's image encoder.

        Raises:
            ValueError: if it has none.
        """
        if self.pipe.image_encoder is None:
            raise ValueError(
                f"the pipeline of {model} has no image encoder: load it with one, or encode the "
                "images before it is dropped"
            )
        return self.pipe.image_encoder


def check_image_encoder(reward: AnyReward, encoder: ImageEncoder | None, setting: str) -> None:
    """Refuse a reward that sees images without their encoder, and an encoder without one.

    Args:
        reward: what will be called.
        encoder: what will encode the images.
        setting: what the caller's settings call it.

    Raises:
        ValueError: naming the setting.
    """
    sees = as_reward(reward).reads_image
    if encoder is None and sees:
        raise ValueError(
            "the reward requires reference images (image_input='image'): give "
            f"`{setting}`, an image-to-video pipeline"
        )
    if encoder is not None and not sees:
        raise ValueError(f"the reward reads no reference images: leave `{setting}` out")


def image_of(
    pipe: Any, images: Sequence[Any] | Image.Image, *, height: int, width: int, num_frames: int
) -> ImageCondition:
    """What an image-to-video pipeline feeds of reference images, one row each; see `ImageEncoder`.

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
    return ImageEncoder(pipe)(images, height=height, width=width, num_frames=num_frames)


def load_image_encoder(
    source: str | Path, *, dtype: torch.dtype, device: str | torch.device
) -> ImageEncoder:
    """The parts of an image-to-video pipeline that see images, without its transformer and text.

    Args:
        source: a bundled name, a folder or a hub id of a pipeline of a known class.
        dtype: of its VAE and image encoder.
        device: where they go.

    Raises:
        FileNotFoundError: if there is no such pipeline.
        ValueError: for a pipeline that is not known to take images.
    """
    folder = folder_of(source)
    settings = settings_folder(folder)
    config = json.loads((config_folder(settings) / "config.json").read_text())
    index = json.loads((settings / "model_index.json").read_text())
    parts = [name for name, value in index.items() if isinstance(value, list)]
    text = settings / "text_encoder" / "config.json"
    pipe = DiffusionPipeline.from_pretrained(
        folder,
        **{name: None for name in parts if name not in VISION},
        **weights_in(dtype),
        use_safetensors=True,
    )
    return ImageEncoder(
        pipe.to(device),
        transformer_config=config,
        text_type=json.loads(text.read_text())["model_type"] if text.is_file() else None,
    )
