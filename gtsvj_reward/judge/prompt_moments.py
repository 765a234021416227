"""What a prompt does to hidden tokens: further moments of a judge that reads prompts.

The frozen generator runs twice at one level of noise, under the prompt and under none. A linear
readout of the difference can tell a clip that shows its prompt from one that does not; with little
noise it tells less, since the clip then says all that the prompt could.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.backbones import ImageCondition, NoiseLevel, TextCondition
from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.losses.reduction import at_least_float32

PROMPT_MOMENTS = ("mean", "product")
"""Of the difference, over the tokens of a step, in the order of its features."""

NOISE_SEED = 0
"""Of the noise, which is the same for all clips of one shape."""


def prompt_moments(
    under: Float[Tensor, "batch step tokens dim"], without: Float[Tensor, "batch step tokens dim"]
) -> Float[Tensor, "batch step feature"]:
    """Means over a step's tokens of the difference of two passes, and of its product with one.

    That is the pass without the prompt: the product says whether a prompt (or an image) adds what
    is there already. Tokens are normalised by a LayerNorm without weights, as for other moments.

    Args:
        under: tokens under the prompt.
        without: tokens under the null condition.
    """
    first, second = (
        F.layer_norm(at_least_float32(tokens), tokens.shape[-1:]) for tokens in (under, without)
    )
    difference = first - second
    return torch.cat([difference.mean(dim=2), (difference * second).mean(dim=2)], dim=2)


def read_prompts(
    backbone: Backbone,
    latents: Float[Tensor, "batch time channel height width"],
    text: TextCondition | None,
    image: ImageCondition | None = None,
    *,
    taps: Sequence[int],
    level: NoiseLevel,
) -> Float[Tensor, "batch step feature"]:
    """Prompt moments of clips at each tap; zeros, those of no difference, without prompts.

    Args:
        backbone: the transformer.
        latents: clean latents, as the backbone sees them.
        text: prompts, one per clip.
        image: reference images, the same in both passes.
        taps: blocks, counted from 1.
        level: noise at which it is asked.
    """
    if text is None:
        steps = backbone.steps(latents.shape[1])
        width = sum(prompt_widths(taps, backbone.dim))
        return at_least_float32(latents).new_zeros(len(latents), steps, width)
    clean = at_least_float32(latents)
    noisy = level.noisy(clean, level_noise(level, clean.shape[1:], NOISE_SEED).to(clean))
    under, without = (
        backbone(noisy, timestep=level.timestep, text=some, image=image, taps=taps)
        for some in (text, None)
    )
    return torch.cat([prompt_moments(under[tap], without[tap]) for tap in taps], dim=2)


def prompt_widths(taps: Sequence[int], dim: int) -> tuple[int, ...]:
    """Features of the prompt at each tap that is a block."""
    return tuple(len(PROMPT_MOMENTS) * dim for tap in taps if tap)
