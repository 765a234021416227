"""What a reference image does to hidden tokens: further moments of a judge that sees images.

As for prompts, the frozen generator runs twice at one level of noise, with the image and without.
Beside that stands how far each step is from the image in latents, which needs no generator.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import Backbone, ImageCondition, NoiseLevel
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.judge.moments import magnitude
from gtsvj_reward.judge.prompt_moments import NOISE_SEED, prompt_moments, prompt_widths
from gtsvj_reward.losses.reduction import at_least_float32


def image_distances(
    latents: Float[Tensor, "batch time channel height width"],
    image: ImageCondition,
    step_of_frame: Sequence[int],
) -> Float[Tensor, "batch step channel"]:
    """Mean |clip - image| of each channel, frame by frame; a step has the mean of its frames.

    Args:
        latents: of the clips.
        image: the first of its latent frames is what the clips are compared with.
        step_of_frame: for each latent frame, the step of the blocks that it is part of.
    """
    clean = at_least_float32(latents)
    frames = magnitude(clean - image.latents[:, :1].to(clean)).mean(dim=(3, 4))
    steps = torch.tensor(step_of_frame)
    members = (torch.arange(int(steps.max()) + 1)[:, None] == steps[None]).to(frames)
    return torch.einsum("st,btc->bsc", members / members.sum(dim=1, keepdim=True), frames)


def read_images(
    backbone: Backbone,
    latents: Float[Tensor, "batch time channel height width"],
    image: ImageCondition,
    *,
    taps: Sequence[int],
    level: NoiseLevel,
) -> Float[Tensor, "batch step feature"]:
    """Distances from the image, if the latents are a tap, and what it changes at each block.

    Args:
        backbone: the transformer.
        latents: clean latents.
        image: reference images, one per clip.
        taps: blocks, counted from 1, and 0 for the latents.
        level: noise at which the transformer is asked.
    """
    clean, blocks = at_least_float32(latents), [tap for tap in taps if tap]
    parts = []
    if 0 in taps:
        parts.append(image_distances(clean, image, backbone.step_of_frame(clean.shape[1])))
    if blocks:
        noisy = level.noisy(clean, level_noise(level, clean.shape[1:], NOISE_SEED).to(clean))
        under, without = (
            backbone(noisy, timestep=level.timestep, image=some, taps=blocks)
            for some in (image, None)
        )
        parts += [prompt_moments(under[tap], without[tap]) for tap in blocks]
    return torch.cat(parts, dim=2)


def image_widths(taps: Sequence[int], latent_channels: int, dim: int) -> tuple[int, ...]:
    """Features of the image at each tap."""
    return ((latent_channels,) if 0 in taps else ()) + prompt_widths(taps, dim)
