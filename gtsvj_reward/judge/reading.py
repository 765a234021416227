"""Features that a moment judge reads: moments at its taps, and surprise."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import (
    Backbone,
    ImageCondition,
    NoiseLevel,
    TextCondition,
    denoising_errors,
    noise_levels,
)
from gtsvj_reward.backbones.lora import lora_blocks
from gtsvj_reward.dtypes import dtype_name
from gtsvj_reward.judge.config import JudgeConfig
from gtsvj_reward.judge.image_moments import image_widths, read_images
from gtsvj_reward.judge.moments import block_moments, check_taps, default_taps, latent_moments
from gtsvj_reward.judge.prompt_moments import prompt_widths, read_prompts
from gtsvj_reward.judge.readout import tap_widths

PROMPT_SHARE = 0.5
"""Of noise, at which the generator is asked what a prompt or an image changes: as much noise as
clip."""


def step_features(
    backbone: Backbone,
    latents: Float[Tensor, "batch time channel height width"],
    config: JudgeConfig,
    text: TextCondition | None,
    image: ImageCondition | None = None,
) -> Float[Tensor, "batch step feature"]:
    """Moments of each step, tap after tap, then a surprise for each noise level.

    A judge that reads prompts reads all of this under none, and then what its prompt changes; one
    that sees images reads it with them, and then what they change.
    """
    taps = config.taps or ()
    blocks = [tap for tap in taps if tap]
    parts: list[Tensor] = []
    null = text if config.prompt_level is None else None
    if 0 in taps:
        parts.append(latent_moments(latents, backbone.step_of_frame(latents.shape[1])))
    if blocks:
        rows, columns = (size // backbone.patch_size for size in latents.shape[3:])
        by_tap = backbone(
            latents,
            timestep=config.timestep,
            text=null,
            image=image,
            taps=blocks,
            read=partial(block_moments, rows=rows, columns=columns),
        )
        parts += by_tap.values()
    if config.noise_levels:
        found = surprise(backbone, latents, config.noise_levels, null, config.noise_seed, image)
        parts.append(found.to(parts[0]))
    if config.prompt_level is not None:
        changed = read_prompts(
            backbone, latents, text, image, taps=blocks, level=config.prompt_level
        )
        parts.append(changed.to(parts[0]))
    if image is not None and config.image_level is not None:
        changed = read_images(backbone, latents, image, taps=taps, level=config.image_level)
        parts.append(changed.to(parts[0]))
    return torch.cat(parts, dim=2)


def surprise(
    backbone: Backbone,
    latents: Float[Tensor, "batch time channel height width"],
    levels: tuple[NoiseLevel, ...],
    text: TextCondition | None,
    seed: int,
    image: ImageCondition | None = None,
) -> Float[Tensor, "batch step level"]:
    """Logarithm of the generator's denoising error of each step, one pass a level.

    The noise is the same for every clip of one shape, so that this is a smooth function of the
    latents. The logarithm, since errors of different clips differ by factors.
    """
    errors = denoising_errors(backbone, latents, levels, text=text, image=image, seed=seed)
    return errors.clamp_min(torch.finfo(errors.dtype).tiny).log().transpose(1, 2)


def completed(config: JudgeConfig, backbone: Backbone, scheduler: Any = None) -> JudgeConfig:
    """A config with what follows from the backbone that is read."""
    weight = next(backbone.base_tensors())[1]
    found = replace(
        config,
        family=backbone.family,
        depth=backbone.depth,
        base_dtype=dtype_name(weight.dtype),
        # On the meta device, where costs are counted, there is nothing to fingerprint.
        base_fingerprint=None if weight.is_meta else backbone.fingerprint(),
    )
    if config.readout != "moments":
        return found
    taps = check_taps(config.taps or default_taps(backbone.depth), backbone.depth)
    check_adapter_is_read(config, taps, backbone.depth)
    return replace(
        found,
        taps=taps,
        noise_levels=levels_of(backbone, config, scheduler),
        prompt_level=prompt_level_of(backbone, config, scheduler),
        image_level=image_level_of(backbone, config, scheduler),
    )


def check_adapter_is_read(config: JudgeConfig, taps: Sequence[int], depth: int) -> None:
    """Refuse LoRA behind the last tap, where it would change nothing.

    Raises:
        ValueError: naming its last block and the taps.
    """
    if config.lora_rank and taps[-1] < (last := lora_blocks(depth, config.lora_placement).stop):
        raise ValueError(
            f"LoRA reaches up to block {last}, `taps` {list(taps)} do not: read block {last}, or "
            "choose another `lora_placement` or a smaller `depth`"
        )


def feature_widths(backbone: Backbone, config: JudgeConfig) -> tuple[int, ...]:
    """Features of each tap and, where a judge reads them, of surprise, prompt and image.

    The prompt has some for each block, the image for each tap. Each of these has a penalty.
    """
    taps = config.taps or ()
    widths = tap_widths(taps, backbone.latent_channels, backbone.dim)
    if config.noise_levels:
        widths = (*widths, len(config.noise_levels))
    if config.prompt_level is not None:
        widths = (*widths, *prompt_widths(taps, backbone.dim))
    if config.image_level is not None:
        widths = (*widths, *image_widths(taps, backbone.latent_channels, backbone.dim))
    return widths


def levels_of(backbone: Backbone, config: JudgeConfig, scheduler: Any) -> tuple[NoiseLevel, ...]:
    """The noise levels of `config.surprise` as the generator means them.

    Raises:
        ValueError: for shares that a family has no levels for without `scheduler`, and for a
            backbone that leaves blocks out.
    """
    if not config.surprise:
        return ()
    if not backbone.whole:
        raise ValueError(
            f"`surprise` takes all blocks of the {backbone.family}, this backbone has "
            f"{backbone.depth} of them: leave out `depth`, and name fewer `taps` instead"
        )
    return config.noise_levels or noise_levels(backbone, config.surprise, scheduler)


def prompt_level_of(backbone: Backbone, config: JudgeConfig, scheduler: Any) -> NoiseLevel | None:
    """The noise level at which a judge reads prompts; None for one that reads none.

    Raises:
        ValueError: for a family that has no levels without `scheduler`, and a judge that reads the
            latents alone.
    """
    if config.text_input != "prompt":
        return None
    if config.taps and not any(config.taps):
        raise ValueError("a judge that reads prompts needs a block among its `taps`")
    return config.prompt_level or noise_levels(backbone, (PROMPT_SHARE,), scheduler)[0]


def image_level_of(backbone: Backbone, config: JudgeConfig, scheduler: Any) -> NoiseLevel | None:
    """The noise level at which a judge reads images; None for one that sees none.

    Raises:
        ValueError: for a family that has no levels without `scheduler`.
    """
    if config.image_input == "none":
        return None
    return config.image_level or noise_levels(backbone, (PROMPT_SHARE,), scheduler)[0]
