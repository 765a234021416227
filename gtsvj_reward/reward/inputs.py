"""Converts callers' inputs (numpy, PIL, a pipeline for a space) for rewards, or rejects them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.latents.space import LatentSpace

Array = Tensor | np.ndarray
AnyLatents = Array | Sequence[Any]
"""Latents (batch, time, channel, height, width), or clips without the batch axis, of any sizes."""
AnyFrames = Array | Sequence[Any]
"""Decoded videos in the formats of diffusers; see `as_videos`."""
AnySpace: TypeAlias = LatentSpace | nn.Module | ConfigMixin
"""A latent space, or a diffusers pipeline or VAE to read it from."""
AnyNumber = float | str
"""A number, or its text."""

PASS_LATENTS = (
    'call the pipeline with output_type="latent" and pass its `.frames`, or score pixels with '
    "`reward.score_frames(frames, vae=...)`"
)


def as_latents(latents: AnyLatents) -> Tensor | list[Tensor]:
    """Latents as tensors: a batch, or a list of clips without the batch axis.

    Raises:
        TypeError: for anything else, with what to pass.
    """
    match latents:
        case Tensor():
            return latents
        case np.ndarray():
            return torch.from_numpy(latents)
        case list() | tuple():
            return [as_clip(clip, index) for index, clip in enumerate(latents)]
    raise TypeError(
        "expected latents, a tensor (batch, time, channel, height, width) or a list of clips, got "
        f"{described(latents)}: {PASS_LATENTS}"
    )


def as_clip(clip: Any, index: int) -> Tensor:
    """One clip of a list; a batch of one is that clip.

    Raises:
        TypeError: for what is no tensor.
        ValueError: for a batch of several clips.
    """
    match clip:
        case np.ndarray():
            found = torch.from_numpy(clip)
        case Tensor():
            found = clip
        case _:
            frames = ", a decoded video" if is_pictures(clip) else ""
            raise TypeError(
                f"expected latents, got {described(clip)}{frames} as clip {index}: {PASS_LATENTS}"
            )
    if found.ndim != 5:
        return found
    if len(found) != 1:
        raise ValueError(
            f"clip {index} of the list is a batch of {len(found)} clips, {tuple(found.shape)}: "
            "pass one tensor, `torch.cat(clips)`, or a list of single clips"
        )
    return found[0]


def as_space(space: AnySpace | None) -> LatentSpace | None:
    """A latent space, or that of a diffusers pipeline or VAE, read at each call.

    Raises:
        TypeError: for anything else.
        LatentSpaceError: for a pipeline or VAE of a family that is not known.
    """
    if space is None or isinstance(space, LatentSpace):
        return space
    from diffusers import DiffusionPipeline

    match space:
        case DiffusionPipeline():
            return LatentSpace.from_pipeline(space)
        case nn.Module():
            return LatentSpace.from_vae(space)
    raise TypeError(
        "`space` must name the VAE of the latents: pass `LatentSpace.from_pipeline(pipe)`, the "
        f"pipeline itself or its VAE, got {described(space)}"
    )


def as_number(name: str, value: AnyNumber | None) -> float | None:
    """A positive, finite number, or its text as in configuration files.

    Raises:
        ValueError: for anything else, with the argument's name.
    """
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` must be a number > 0, got {value!r}")
    return number


def as_count(name: str, value: AnyNumber | None) -> int | None:
    """A whole number; otherwise as `as_number`.

    Raises:
        ValueError: for anything else, with the argument's name.
    """
    number = as_number(name, value)
    if number is None:
        return None
    if number != int(number):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}")
    return int(number)


def as_text(text: TextCondition | None) -> TextCondition | None:
    """Prompt embeddings.

    Raises:
        TypeError: for prompts that are not encoded, and tensors whose mask is not known.
    """
    if text is None or isinstance(text, TextCondition):
        return text
    raise TypeError(
        "`text` takes the prompts' embeddings, `TextCondition(embeds)`, with `mask` and `pooled` "
        f"where the family has them, got {described(text)}. The pipeline's `encode_prompt` makes "
        "them; a judge that ignores prompts takes none"
    )


def as_image(image: ImageCondition | None) -> ImageCondition | None:
    """Reference images as their pipeline feeds them.

    Raises:
        TypeError: for images that are not encoded.
    """
    if image is None or isinstance(image, ImageCondition):
        return image
    raise TypeError(
        "`image` must be an `ImageCondition`, the encoded reference images, got "
        f"{described(image)}: make it with `image_of(pipe, images, ...)`"
    )


def as_videos(frames: AnyFrames) -> Tensor | list[Tensor]:
    """Decoded videos in [0, 1]: (batch, time, 3, height, width), or a list without the batch axis.

    Accepted are tensors and arrays with the colours on axis 2 (diffusers' `pt`), 1, or the last one
    (its `np`), in [0, 1] or bytes; one video without the batch axis; a list of PIL images, which is
    one video; and a list of any such videos (diffusers' default, `pil`).

    Raises:
        TypeError: for anything else.
        ValueError: for shapes without an axis of 3 colours.
    """
    match frames:
        case Tensor() | np.ndarray():
            videos = as_floats(frames)
            return colours_third(videos[None] if videos.ndim == 4 else videos)
        case list() | tuple() if is_pictures(frames):
            return torch.stack([as_picture(frame) for frame in frames])[None]
        case list() | tuple() if frames:
            return [single(as_videos(video), index) for index, video in enumerate(frames)]
    raise TypeError(
        "expected decoded videos: tensors or arrays (batch, time, 3, height, width), or lists of "
        f"PIL images, got {described(frames)}"
    )


def encode_videos(
    videos: Tensor | list[Tensor], encode: Callable[[Tensor], Tensor]
) -> Tensor | list[Tensor]:
    """Latents of videos as `as_videos` gives them; those of a list one by one."""
    if isinstance(videos, Tensor):
        return encode(videos)
    return [encode(video[None])[0] for video in videos]


def is_pictures(frames: Any) -> bool:
    """Whether this is a list of PIL images, one video."""
    return (
        isinstance(frames, list | tuple)
        and bool(frames)
        and all(isinstance(frame, Image.Image) for frame in frames)
    )


def as_picture(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """A PIL image in [0, 1]."""
    return as_floats(np.array(image.convert("RGB"))).permute(2, 0, 1)


def as_floats(values: Array) -> Tensor:
    """Colours in [0, 1]: bytes are divided by 255, others are as they are."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor


def colours_third(videos: Tensor) -> Tensor:
    """Videos with their colours on axis 2, from axis 2, 1 or 4.

    Raises:
        ValueError: if none of them has size 3.
    """
    shape = tuple(videos.shape)
    match shape:
        case (_, _, 3, _, _):
            return videos
        case (_, 3, _, _, _):
            return videos.transpose(1, 2)
        case (_, _, _, _, 3):
            return videos.permute(0, 1, 4, 2, 3)
    raise ValueError(
        "expected frames (batch, time, 3, height, width), or with the 3 colours on axis 1 or last, "
        f"got shape {shape}; latents are scored by calling the reward itself"
    )


def single(videos: Tensor | list[Tensor], index: int) -> Tensor:
    """The one video of a batch.

    Raises:
        ValueError: if there are several.
    """
    if len(videos) != 1:
        raise ValueError(f"video {index} of the list holds {len(videos)} videos: pass them singly")
    return videos[0]


def described(value: Any) -> str:
    """Short description of a value for messages."""
    kind = type(value).__name__
    match value:
        case str() | int() | float():
            return f"the {kind} {value!r}"
        case list() | tuple():
            return (
                f"a {kind} of {len(value)} {type(value[0]).__name__}"
                if value
                else f"an empty {kind}"
            )
    return f"a {kind}"
