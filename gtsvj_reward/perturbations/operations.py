"""The five perturbations of Section 4.1: latents in, degraded latents out.

Each takes a batch of clips `(batch, time, channels, height, width)` and draws anew for every clip,
in order, from one CPU generator, whatever device the latents are on. Shape, dtype and device are
kept, the input is never written to, values that an operation does not name come out bit for bit,
and gradients pass through. All five need at least `MINIMUM_STEPS` latent steps.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.perturbations.index_maps import (
    frame_drop_index,
    frame_shuffle_index,
    noisy_segment_slice,
    patch_swap_region,
    require_steps,
    slice_pair,
    temporal_slice_swap_index,
)


class Perturbation(Protocol):
    """Signature of a perturbation."""

    def __call__(self, latents: Tensor, *, generator: torch.Generator) -> Tensor:
        """Perturb a batch of latents (batch, time, channels, height, width)."""


def frame_shuffle(
    latents: Float[Tensor, "batch time channels height width"], *, generator: torch.Generator
) -> Float[Tensor, "batch time channels height width"]:
    """Permute a random subset of the frames: z̃_t = z_Π(t) for t in I.

    `frame_shuffle_index` states the law of I and Π.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.

    Returns:
        Latents with the same frames in another order.

    Raises:
        ValueError: clip too short, not five axes, or a generator that is not on the CPU.
    """
    return _retime(latents, "frame_shuffle", frame_shuffle_index, generator)


def frame_drop(
    latents: Float[Tensor, "batch time channels height width"], *, generator: torch.Generator
) -> Float[Tensor, "batch time channels height width"]:
    """Replace some frames by the frame before each: z̃_t = z_{t-1} for t in I.

    I is never empty, never holds the first frame and never two neighbours, and every other frame is
    in it equally often; `frame_drop_index` states its law.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.

    Returns:
        Latents of the same length with repeated frames.

    Raises:
        ValueError: clip too short, not five axes, or a generator that is not on the CPU.
    """
    return _retime(latents, "frame_drop", frame_drop_index, generator)


def temporal_slice_swap(
    latents: Float[Tensor, "batch time channels height width"], *, generator: torch.Generator
) -> Float[Tensor, "batch time channels height width"]:
    """Exchange two non-overlapping slices of 1..⌊T/2⌋ frames each.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.

    Returns:
        Latents with the same frames in another order.

    Raises:
        ValueError: clip too short, not five axes, or a generator that is not on the CPU.
    """
    return _retime(latents, "temporal_slice_swap", temporal_slice_swap_index, generator)


def noisy_segment(
    latents: Float[Tensor, "batch time channels height width"],
    *,
    generator: torch.Generator,
    noise_range: tuple[float, float] = (0.1, 0.5),
) -> Float[Tensor, "batch time channels height width"]:
    """Add Gaussian noise to a random slice: z̃_t = z_t + ε_t for t in [s, e).

    One strength is drawn per clip, uniform in `noise_range`; the noise's σ in a channel is that
    strength times the channel's standard deviation over the clip. (The paper does not state σ.)
    The noise carries no gradient.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.
        noise_range: least and greatest strength, in standard deviations, 0 < least <= greatest.

    Returns:
        Latents with 1..⌊T/2⌋ noisy frames.

    Raises:
        ValueError: bad `noise_range`, clip too short, not five axes, or a generator that is not
            on the CPU.
    """
    low, high = noise_range
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"`noise_range` must satisfy 0 < least <= greatest, got {noise_range}")
    check_perturbable(latents, "noisy_segment", generator)
    batch, steps, *frame = latents.shape
    noise = torch.zeros(latents.shape)
    noisy = torch.zeros(batch, steps, 1, 1, 1, dtype=torch.bool)
    for clip in range(batch):
        start, end = noisy_segment_slice(steps, generator)
        strength = low + (high - low) * torch.rand((), generator=generator).item()
        noise[clip, start:end] = strength * torch.randn(end - start, *frame, generator=generator)
        noisy[clip, start:end] = True
    spread = latents.detach().float().std(dim=(1, 3, 4), keepdim=True, correction=0)
    scaled = (noise.to(latents.device) * spread).to(latents.dtype)
    # Not `latents + 0`, which would turn a clean -0.0 into 0.0.
    return torch.where(noisy.to(latents.device), latents + scaled, latents)


def patch_swap(
    latents: Float[Tensor, "batch time channels height width"],
    *,
    generator: torch.Generator,
    one_way: bool = False,
    region_fraction: tuple[float, float] = (0.25, 0.5),
) -> Float[Tensor, "batch time channels height width"]:
    """Exchange one spatial region Ω between two non-overlapping slices of 1..⌊T/2⌋ frames.

    In the paper's text the region is exchanged, in its formula only the first slice changes; the
    default follows the text. Under one seed both forms draw the same slices and region.

    Args:
        latents: clean latents, at least 3 steps and 2 latent pixels.
        generator: CPU generator.
        one_way: follow the printed formula: the second slice is copied from, and left as it is.
        region_fraction: least and greatest side of Ω as fractions of the frame's, above 0 and
            below 1. (The paper does not state the size.)

    Returns:
        Latents changed inside Ω of the two slices.

    Raises:
        ValueError: bad `region_fraction`, clip too short, not five axes, or a generator that is
            not on the CPU.
    """
    check_perturbable(latents, "patch_swap", generator)
    batch, steps, _, height, width = latents.shape
    inside = torch.zeros(batch, 1, 1, height, width, dtype=torch.bool)
    maps = []
    for clip in range(batch):
        pair = slice_pair(steps, generator)
        maps.append(pair.overwrite(steps) if one_way else pair.exchange(steps))
        region = patch_swap_region(height, width, generator, region_fraction)
        rows = slice(region.top, region.top + region.height)
        inside[clip, :, :, rows, region.left : region.left + region.width] = True
    moved = _gather(latents, torch.stack(maps))
    return torch.where(inside.to(latents.device), moved, latents)


PERTURBATIONS: dict[str, Perturbation] = {
    "temporal_slice_swap": temporal_slice_swap,
    "noisy_segment": noisy_segment,
    "frame_shuffle": frame_shuffle,
    "frame_drop": frame_drop,
    "patch_swap": patch_swap,
}
"""Name -> operation, in the order of Table A.1."""


def _retime(
    latents: Float[Tensor, "batch time channels height width"],
    operation: str,
    draw_index: Callable[[int, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Float[Tensor, "batch time channels height width"]:
    check_perturbable(latents, operation, generator)
    batch, steps = latents.shape[:2]
    return _gather(latents, torch.stack([draw_index(steps, generator) for _ in range(batch)]))


def _gather(
    latents: Float[Tensor, "batch time channels height width"], index: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time channels height width"]:
    clips = torch.arange(len(latents), device=latents.device)[:, None]
    return latents[clips, index.to(latents.device)]


def check_perturbable(latents: Tensor, operation: str, generator: torch.Generator) -> None:
    """Refuse what no perturbation takes.

    Raises:
        ValueError: clip too short, not five axes, or a generator that is not on the CPU.
    """
    if latents.ndim != 5 or len(latents) == 0:
        raise ValueError(
            f"{operation} expects latents (batch, time, channels, height, width) with at least one "
            f"clip, got shape {tuple(latents.shape)}; add the batch axis of one clip with `[None]`"
        )
    if generator.device.type != "cpu":
        raise ValueError(
            f"{operation} draws on the CPU so that results do not depend on the latents' device; "
            f"got a generator on {generator.device}: use `keyed_generator(...)` or "
            "`torch.Generator()`"
        )
    require_steps(latents.shape[1], operation)
