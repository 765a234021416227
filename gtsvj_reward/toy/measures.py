"""Metrics of a clip's pixels without a model."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def colour_unrest(frames: UInt8[Tensor, "clip time height width 3"]) -> Float[Tensor, " clip"]:
    """How much the mean colour of the frames moves over time, in grey levels of 0..255.

    The standard deviation over time of each channel's mean, averaged over channels. A clip of this
    world has little of it: light is constant, and only bodies that enter or leave move the mean.
    Flicker and colour drift raise it in every scene, jitter in most.
    """
    means = frames.float().mean(dim=(2, 3))  # (clip time channel)
    unrest: Tensor = means.std(dim=1, correction=0).mean(dim=1)
    return unrest.cpu()


def steadiness(frames: UInt8[Tensor, "clip time height width 3"]) -> Float[Tensor, " clip"]:
    """Minus the logarithm of `colour_unrest`: higher is better; log 2 is half of the unrest."""
    return -torch.log(colour_unrest(frames).clamp_min(1e-2))
