"""Faults in pixel space that no stage trains on: frames (time, height, width, 3), uint8."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

Frames = UInt8[Tensor, "time height width 3"]


def flicker(frames: Frames, generator: torch.Generator) -> Frames:
    """Each frame's brightness is scaled by its own factor, uniform in 0.7..1.3."""
    gain = 0.7 + 0.6 * torch.rand(len(frames), 1, 1, 1, generator=generator)
    return to_bytes(frames.float() * gain)


def freeze(frames: Frames, generator: torch.Generator) -> Frames:
    """A random third of the clip, not its start, shows the frame before it."""
    length = max(1, len(frames) // 3)
    start = int(torch.randint(1, len(frames) - length + 1, (), generator=generator))
    frozen = frames.clone()
    frozen[start : start + length] = frames[start - 1]
    return frozen


def blur(frames: Frames, generator: torch.Generator) -> Frames:
    """Gaussian blur, sigma 2 pixels, the same in every frame."""
    del generator
    offsets = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * 2.0**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    image = frames.permute(0, 3, 1, 2).float()
    image = F.pad(image, (6, 6, 6, 6), mode="reflect")
    image = F.conv2d(image, kernel[:, None, :, None], groups=3)
    image = F.conv2d(image, kernel[:, None, None, :], groups=3)
    return to_bytes(image.permute(0, 2, 3, 1))


def noise(frames: Frames, generator: torch.Generator) -> Frames:
    """Gaussian noise with a standard deviation of 20 grey levels, new in every frame."""
    drawn = torch.randn(frames.shape, generator=generator)
    return to_bytes(frames.float() + 20 * drawn)


DEGRADATIONS: dict[str, Callable[[Frames, torch.Generator], Frames]] = {
    "flicker": flicker,
    "freeze": freeze,
    "blur": blur,
    "noise": noise,
}
"""Name -> operation; deterministic under the generator."""


def to_bytes(frames: Float[Tensor, "time height width 3"]) -> Frames:
    """Rounded and clipped to 0..255."""
    return frames.round().clamp(0, 255).byte()
