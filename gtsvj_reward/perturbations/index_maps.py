"""Where each frame of a perturbed clip comes from, drawn for one clip of T latent steps.

An index map `index` of length T means `perturbed[t] = clip[index[t]]`. No map drawn here is the
identity; a clip of equal frames is still unchanged under every map. Everything is drawn on the CPU,
so that results do not depend on where the latents live.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

MINIMUM_STEPS = 3
"""Fewest latent steps that any of the five perturbations accepts.

One minimum for all five, so that which kinds can be sampled never depends on a clip's length. With
two steps frame shuffle and temporal slice swap would be the same operation.
"""


@dataclass(frozen=True)
class SlicePair:
    """Two slices of one clip, [first, first + length) and [second, second + length), disjoint.

    `first` may lie before or after `second`.
    """

    first: int
    second: int
    length: int

    def exchange(self, steps: int) -> Int[Tensor, " time"]:
        """Index map that swaps the two slices."""
        index = self.overwrite(steps)
        index[self.second : self.second + self.length] = torch.arange(self.length) + self.first
        return index

    def overwrite(self, steps: int) -> Int[Tensor, " time"]:
        """Index map that copies the second slice over the first and leaves the second unchanged."""
        index = torch.arange(steps)
        index[self.first : self.first + self.length] = torch.arange(self.length) + self.second
        return index


@dataclass(frozen=True)
class Region:
    """A rectangle of latent pixels: rows [top, top + height), columns [left, left + width)."""

    top: int
    left: int
    height: int
    width: int


def frame_shuffle_index(steps: int, generator: torch.Generator) -> Int[Tensor, " time"]:
    """Index map that permutes a random subset of the steps.

    The subset's size is uniform in 2..T, the subset uniform among those of its size, and the
    permutation uniform among those of the subset that are not the identity.

    Args:
        steps: T, at least `MINIMUM_STEPS`.
        generator: CPU generator.

    Raises:
        ValueError: the clip is too short.
    """
    require_steps(steps, "frame_shuffle")
    size = integer(2, steps, generator)
    subset = torch.randperm(steps, generator=generator)[:size].sort().values
    order = torch.randperm(size, generator=generator)
    while torch.equal(order, torch.arange(size)):
        order = torch.randperm(size, generator=generator)
    index = torch.arange(steps)
    index[subset] = subset[order]
    return index


def frame_drop_index(steps: int, generator: torch.Generator) -> Int[Tensor, " time"]:
    """Index map that replaces a random set of steps by the step before each.

    The set is never empty, never holds step 0, and never holds two neighbours (the paper's
    "non-contiguous"). Its size is uniform in 1..⌊(T-1)/2⌋, and every other step is in it equally
    often: it is uniform among the sets of its size that have no neighbours on the circle of steps
    1..T-1. On a line, the ends of a clip would be dropped up to twice as often as its middle.

    Args:
        steps: T, at least `MINIMUM_STEPS`.
        generator: CPU generator.

    Raises:
        ValueError: the clip is too short.
    """
    require_steps(steps, "frame_drop")
    around = steps - 1
    count = integer(1, around // 2, generator)
    # From one dropped step to the next it is 2 or more; what is left over is dealt out by bars.
    bars = torch.randperm(around - count - 1, generator=generator)[: count - 1].sort().values
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), bars + torch.arange(count - 1) + 2])
    dropped = (integer(0, around - 1, generator) + offsets) % around + 1
    index = torch.arange(steps)
    index[dropped] = dropped - 1
    return index


def temporal_slice_swap_index(steps: int, generator: torch.Generator) -> Int[Tensor, " time"]:
    """Index map that swaps two non-overlapping slices, drawn by `slice_pair`.

    Args:
        steps: T, at least `MINIMUM_STEPS`.
        generator: CPU generator.

    Raises:
        ValueError: the clip is too short.
    """
    require_steps(steps, "temporal_slice_swap")
    return slice_pair(steps, generator).exchange(steps)


def slice_pair(steps: int, generator: torch.Generator) -> SlicePair:
    """Two non-overlapping slices of equal length τ, in random order.

    τ is uniform in 1..⌊T/2⌋; the pair is uniform among the ordered pairs that fit. Slices that lie
    within a clip cover its ends less often than its middle; no law of whole slices could be even.

    Args:
        steps: T, at least 2.
        generator: CPU generator.

    Raises:
        ValueError: fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"two slices need at least 2 latent steps, got T = {steps}")
    length = integer(1, steps // 2, generator)
    # Cut both slices out: what is left is T - 2τ steps, with room for the two among them.
    places = torch.randperm(steps - 2 * length + 2, generator=generator)[:2].tolist()
    starts = [place + (length - 1 if place == max(places) else 0) for place in places]
    return SlicePair(first=starts[0], second=starts[1], length=length)


def noisy_segment_slice(steps: int, generator: torch.Generator) -> tuple[int, int]:
    """Slice [start, end) that receives noise.

    Its length is uniform in 1..⌊T/2⌋, like that of the other slices, so that the corruption stays
    local; its start is uniform among those that fit, so that the ends of a clip are covered less
    often than its middle.

    Args:
        steps: T, at least `MINIMUM_STEPS`.
        generator: CPU generator.

    Raises:
        ValueError: the clip is too short.
    """
    require_steps(steps, "noisy_segment")
    length = integer(1, steps // 2, generator)
    start = integer(0, steps - length, generator)
    return start, start + length


def patch_swap_region(
    height: int, width: int, generator: torch.Generator, fraction: tuple[float, float] = (0.25, 0.5)
) -> Region:
    """Rectangle Ω of the patch swap, always smaller than the frame.

    Its sides are uniform among the whole numbers between `fraction[0]` and `fraction[1]` of the
    frame's (rounded down, at least 1); its place is uniform among those that fit. A rectangle that
    lies within the frame covers borders less often than the middle: a corner is in one place of
    (H - h + 1)(W - w + 1), a pixel of the middle in h·w of them.

    Args:
        height: rows of the latent.
        width: columns of the latent.
        generator: CPU generator.
        fraction: least and greatest side, as fractions of the frame's, 0 < least <= greatest < 1.

    Raises:
        ValueError: `fraction` out of range, or a frame of a single latent pixel.
    """
    low, high = fraction
    if not 0 < low <= high < 1:
        raise ValueError(
            f"`region_fraction` must satisfy 0 < least <= greatest < 1, got {fraction}"
        )
    if height * width < 2:
        raise ValueError(
            "patch_swap needs a region smaller than the frame, hence at least 2 latent pixels; "
            f"got height {height} x width {width}"
        )
    rows = integer(max(1, int(low * height)), max(1, int(high * height)), generator)
    columns = integer(max(1, int(low * width)), max(1, int(high * width)), generator)
    top = integer(0, height - rows, generator)
    left = integer(0, width - columns, generator)
    return Region(top=top, left=left, height=rows, width=columns)


def require_steps(steps: int, operation: str) -> None:
    """Refuse a clip that is too short to be perturbed.

    Raises:
        ValueError: fewer than `MINIMUM_STEPS` steps.
    """
    if steps < MINIMUM_STEPS:
        raise ValueError(
            f"{operation} needs at least {MINIMUM_STEPS} latent steps, got T = {steps}: "
            "leave such clips out, or encode longer ones"
        )


def integer(low: int, high: int, generator: torch.Generator) -> int:
    """Whole number uniform in low..high, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator).item())
