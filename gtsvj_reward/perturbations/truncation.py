"""Variable-length training clips: now and then a prefix of 2 to 6 seconds (Section 5.1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def latent_steps(seconds: float, *, fps: float, temporal_compression: int = 4) -> int:
    """Latent steps that `seconds` of video fill: 1 + ⌊(seconds · fps - 1) / compression⌋.

    The first latent of a causal video VAE is one frame, each later one `temporal_compression`.

    Args:
        seconds: duration, in seconds; at least one frame.
        fps: frames per second of the video, before encoding.
        temporal_compression: frames per latent step after the first.

    Returns:
        Number of latent steps, at least 1.

    Raises:
        ValueError: a duration shorter than a frame, or a factor that is not positive.
    """
    _require_rate(fps, temporal_compression)
    if seconds * fps < 1:
        raise ValueError(f"{seconds} seconds at {fps} fps are less than one frame")
    return 1 + math.floor((seconds * fps - 1) / temporal_compression)


def lengths_between(
    min_seconds: float, max_seconds: float, *, fps: float, temporal_compression: int = 4
) -> tuple[int, int]:
    """Fewest and most latent steps whose own duration lies between two durations.

    Args:
        min_seconds: shortest duration, in seconds.
        max_seconds: longest duration, in seconds.
        fps: frames per second of the video, before encoding.
        temporal_compression: frames per latent step after the first.

    Returns:
        Both numbers; the first may exceed the second, where no length lasts that long.
    """
    most = latent_steps(max_seconds, fps=fps, temporal_compression=temporal_compression)
    fewest = latent_steps(min_seconds, fps=fps, temporal_compression=temporal_compression)
    frames = 1 + temporal_compression * (fewest - 1)
    return fewest + (frames < min_seconds * fps - 1e-9), most


def truncated_length(
    steps: int,
    *,
    fps: float,
    probability: float,
    min_seconds: float = 2.0,
    max_seconds: float = 6.0,
    temporal_compression: int = 4,
    minimum_latents: int = 3,
    generator: torch.Generator,
) -> int:
    """How many latent steps of a clip to keep.

    With `probability` it is one of the lengths that last between `min_seconds` and `max_seconds`
    (`lengths_between`), up to the clip's own, each as likely as the others, and raised to
    `minimum_latents`. Otherwise, and for a clip shorter than `min_seconds`, all steps are kept. The
    generator advances equally in every case.

    Args:
        steps: latent steps of the clip.
        fps: frames per second of the video, before encoding.
        probability: how often to truncate, 0..1; the paper uses 0.25 for the discriminator and 0.2
            for preference pairs.
        min_seconds: shortest duration, in seconds.
        max_seconds: longest duration, in seconds.
        temporal_compression: frames per latent step after the first.
        minimum_latents: fewest steps to keep; a clip with fewer stays whole.
        generator: CPU generator.

    Returns:
        Number of steps to keep, 1..steps.

    Raises:
        ValueError: an argument out of its range.
    """
    _require_rate(fps, temporal_compression)
    if steps < 1 or minimum_latents < 1:
        raise ValueError(
            f"`steps` and `minimum_latents` must be at least 1, got {steps} and {minimum_latents}"
        )
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie in 0..1, got {probability}")
    if not 1 / fps <= min_seconds <= max_seconds < math.inf:
        raise ValueError(
            "expected one frame <= `min_seconds` <= `max_seconds`, "
            f"got {min_seconds} and {max_seconds} seconds at {fps} fps"
        )
    coin, position = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    duration = (1 + temporal_compression * (steps - 1)) / fps
    if coin >= probability or duration < min_seconds:
        return steps
    low, high = lengths_between(
        min_seconds, max_seconds, fps=fps, temporal_compression=temporal_compression
    )
    low = max(low, minimum_latents)
    choices = max(min(high, steps) - low + 1, 1)
    return min(steps, low + int(position * choices))


def truncate(
    latents: Float[Tensor, "*batch time channels height width"],
    *,
    fps: float,
    probability: float,
    min_seconds: float = 2.0,
    max_seconds: float = 6.0,
    temporal_compression: int = 4,
    minimum_latents: int = 3,
    generator: torch.Generator,
) -> Float[Tensor, "*batch kept channels height width"]:
    """Prefix of a clip, of the length that `truncated_length` draws.

    A prefix, because the first latent of a causal VAE covers a single frame; a cut elsewhere would
    put an ordinary latent in its place. A batch is cut to one length. To cut both sides of a pair
    alike, draw `truncated_length` once and slice both.

    Args:
        latents: one clip (time, channels, height, width) or a batch of them.
        fps: frames per second of the video, before encoding.
        probability: how often to truncate, 0..1.
        min_seconds: shortest duration, in seconds.
        max_seconds: longest duration, in seconds.
        temporal_compression: frames per latent step after the first.
        minimum_latents: fewest steps to keep.
        generator: CPU generator.

    Returns:
        A view of the first steps.

    Raises:
        ValueError: an argument out of its range, or latents with neither four nor five axes.
    """
    if latents.ndim not in (4, 5):
        raise ValueError(
            "expected latents (time, channels, height, width) or (batch, time, channels, height, "
            f"width), got shape {tuple(latents.shape)}"
        )
    kept = truncated_length(
        latents.shape[-4],
        fps=fps,
        probability=probability,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        temporal_compression=temporal_compression,
        minimum_latents=minimum_latents,
        generator=generator,
    )
    return latents.narrow(-4, 0, kept)


def _require_rate(fps: float, temporal_compression: int) -> None:
    if not 0 < fps < math.inf or temporal_compression < 1:
        raise ValueError(
            "expected `fps` > 0 and `temporal_compression` >= 1, "
            f"got {fps} and {temporal_compression}"
        )
