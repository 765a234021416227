"""Film strips: frames of a clip side by side, in time order."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from gtsvj_reward.plotting.canvas import FAINT, INK, add_axes, new_figure, save

# Unnamed axes, since clips of one call may differ in size: named ones would have to agree.
Frames = UInt8[Tensor, "_ _ _ 3"] | UInt8[np.ndarray, "_ _ _ 3"]
"""A clip in pixels (frame, height, width, 3), 0..255, RGB."""


def plot_film_strips(
    clips: Sequence[Frames],
    *,
    labels: Sequence[str],
    scores: Sequence[float],
    columns: int = 8,
    score_name: str = "score",
    score_format: str = "+.3f",
    title: str = "",
    path: str | Path,
) -> Path:
    """Draw clips as rows: label, film strip, score.

    Args:
        clips: one clip of frames (frame, height, width, 3) per row; sizes may differ.
        labels: text to the left of each row.
        scores: number to the right of each row.
        columns: frames per strip, evenly spaced in time; a shorter clip shows all it has.
        score_name: heading of the numbers.
        score_format: how the numbers are written, as `format` takes it.
        title: heading of the picture.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: no clips, not one label and one score per clip, or frames that are not RGB.
    """
    if not clips or not len(clips) == len(labels) == len(scores):
        raise ValueError(
            "expected at least one clip and as many labels and scores, "
            f"got {len(clips)} clips, {len(labels)} labels, {len(scores)} scores"
        )
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, got {columns}")
    pictures = [as_frames(clip) for clip in clips]
    numbers = [written(score, score_format) for score in scores]
    return save(_strips_figure(pictures, labels, numbers, columns, score_name, title), path)


def as_frames(frames: Frames) -> np.ndarray:
    """The clip as a numpy array (frame, height, width, 3), checked.

    Raises:
        ValueError: not RGB frames of type uint8.
    """
    array = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(
            "expected frames (frame, height, width, 3) of type uint8, "
            f"got shape {tuple(array.shape)} of type {array.dtype}"
        )
    return array


def written(score: float, score_format: str) -> str:
    """A score as text, with a true minus."""
    return format(score, score_format).replace("-", "\N{MINUS SIGN}")


def draw_strip(axes: Any, frames: np.ndarray, *, columns: int, end: float) -> None:
    """Fill axes with frames that share the time from 0 to `end` evenly.

    Each picture is the frame at the middle of the time that it fills.

    Args:
        axes: where to draw; its limits and frame are set.
        frames: clip (frame, height, width, 3).
        columns: number of pictures.
        end: right end of the strip, in the units of the x axis.
    """
    for column in range(columns):
        frame = frames[int((column + 0.5) * len(frames) / columns)]
        extent = (column * end / columns, (column + 1) * end / columns, 0, 1)
        axes.imshow(frame, extent=extent, aspect="auto", interpolation="antialiased")
    for column in range(1, columns):
        axes.axvline(column * end / columns, color="white", linewidth=1.2)
    axes.set_xlim(0, end)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _strips_figure(
    clips: Sequence[np.ndarray],
    labels: Sequence[str],
    numbers: Sequence[str],
    columns: int,
    score_name: str,
    title: str,
) -> Any:
    label_width, strip_width, score_width, gap = 2.1, 8.0, 0.9, 0.08
    thumb = strip_width / columns
    heights = [thumb * clip.shape[1] / clip.shape[2] for clip in clips]
    top = 0.75 if title else 0.4
    total = sum(heights) + gap * (len(clips) - 1) + top + 0.15
    across = label_width + strip_width + score_width + 0.1
    figure = new_figure(across, total)
    right = (label_width + strip_width + 0.15) / across
    if title:
        figure.text(0.15 / across, 1 - 0.3 / total, title, fontsize=13, va="center", color=INK)
    heading = 1 - (top - 0.16) / total
    figure.text(right, heading, score_name, fontsize=9, va="center", color=FAINT)
    figure.text(
        label_width / across,
        heading,
        "time \N{RIGHTWARDS ARROW}",
        fontsize=9,
        va="center",
        color=FAINT,
    )
    bottom = total - top
    for clip, label, number, height in zip(clips, labels, numbers, heights, strict=True):
        bottom -= height
        shown = min(columns, len(clip))
        strip = add_axes(figure, label_width, bottom, thumb * shown, height)
        draw_strip(strip, clip, columns=shown, end=1.0)
        strip.set_xticks([])
        middle = (bottom + height / 2) / total
        figure.text(0.15 / across, middle, fill(label, 27), fontsize=10, va="center", color=INK)
        figure.text(right, middle, number, fontsize=11, va="center", color=INK)
        bottom -= gap
    return figure
