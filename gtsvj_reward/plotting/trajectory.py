"""Energy over time above the film strip that it was read from (Fig. 3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.plotting.canvas import (
    FAINT,
    INK,
    add_axes,
    line_styles,
    new_figure,
    save,
    spoken,
    style_panel,
)
from gtsvj_reward.plotting.film import Frames, as_frames, draw_strip

WIDTH = 8.6
"""Width of the drawing area, in inches."""


def plot_trajectory(
    frames: Frames,
    trajectories: Mapping[str, Float[Tensor, " step"]],
    *,
    fps: float,
    temporal_compression: int = 4,
    temporal_patch: int = 1,
    temporal_stride: int = 1,
    ylabel: str = "energy",
    title: str = "",
    path: str | Path,
) -> Path:
    """Draw values per latent step against time, above frames of the clip on the same time axis.

    Each point is at the middle of the frames of its step, with a bar that spans them. A judge with
    bidirectional attention reads the whole clip for each step: a peak shows where something is
    wrong, not that the frames before it are correct.

    Args:
        frames: the clip in pixels (frame, height, width, 3), uint8.
        trajectories: name -> value per latent step; all as long as the clip has steps.
        fps: frames per second of the clip.
        temporal_compression: frames per latent after the first.
        temporal_patch: latents per step of the judge (2 for CogVideoX 1.5).
        temporal_stride: of a judge that reads every K-th latent.
        ylabel: name of the values.
        title: heading of the picture.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: no trajectory, one of another length than the clip's, or bad frames or fps.
    """
    pictures = as_frames(frames)
    if not 0 < fps < float("inf"):
        raise ValueError(f"`fps` must be positive, got {fps}")
    spans = step_spans(
        len(pictures),
        temporal_compression=temporal_compression,
        temporal_patch=temporal_patch,
        temporal_stride=temporal_stride,
    )
    if not trajectories:
        raise ValueError("expected at least one trajectory, got none")
    for name, values in trajectories.items():
        if tuple(values.shape) != (len(spans),):
            raise ValueError(
                f"{len(pictures)} frames have {len(spans)} latent steps at a temporal compression "
                f"of {temporal_compression}, a patch of {temporal_patch} and a stride of "
                f"{temporal_stride}, but trajectory "
                f"{name!r} has shape {tuple(values.shape)}: pass the frames that were encoded"
            )
    lines = {name: values.detach().float().tolist() for name, values in trajectories.items()}
    return save(_trajectory_figure(pictures, lines, spans, fps, ylabel, title), path)


def step_spans(
    frame_count: int,
    *,
    temporal_compression: int = 4,
    temporal_patch: int = 1,
    temporal_stride: int = 1,
) -> list[tuple[int, int]]:
    """Frames [start, end) that each latent step covers.

    Latent 0 is frame 0; latent k is frames c·(k-1)+1 .. c·k. Frames that do not fill a latent are
    left over at the end. A judge that patches time pads at the front by repeating the first latent.
    One that skips latents covers those it skips by the step before them.

    Args:
        frame_count: number of frames, at least 1.
        temporal_compression: c, frames per latent after the first.
        temporal_patch: latents that are read per step.
        temporal_stride: every K-th latent is read, beginning with the first.

    Raises:
        ValueError: an argument below 1.
    """
    if min(frame_count, temporal_compression, temporal_patch, temporal_stride) < 1:
        raise ValueError(
            "`frame_count`, `temporal_compression`, `temporal_patch` and `temporal_stride` must be "
            f"at least 1, got {frame_count}, {temporal_compression}, {temporal_patch} and "
            f"{temporal_stride}"
        )
    latents = 1 + (frame_count - 1) // temporal_compression
    seen = -(-latents // temporal_stride)
    steps = -(-seen // temporal_patch)
    # The last latent that each read latent represents, and the frame after it.
    stands_for = [min((k + 1) * temporal_stride, latents) - 1 for k in range(seen)]
    ends = [1 + temporal_compression * latent for latent in stands_for]
    last = [seen - 1 - temporal_patch * (steps - 1 - step) for step in range(steps)]
    starts = [0, *(ends[latent] for latent in last[:-1])]
    return [(start, ends[latent]) for start, latent in zip(starts, last, strict=True)]


def _trajectory_figure(
    frames: np.ndarray,
    lines: Mapping[str, list[float]],
    spans: list[tuple[int, int]],
    fps: float,
    ylabel: str,
    title: str,
) -> Any:
    duration = len(frames) / fps
    aspect = frames.shape[2] / frames.shape[1]
    # As many pictures as fit at a height of about an inch, then the height that fits them exactly.
    columns = max(1, round(WIDTH / aspect))
    strip_height = WIDTH / columns / aspect
    left, bottom, gap, panel_height = 0.85, 0.55, 0.1, 2.6
    rows = -(-len(lines) // 4) if len(lines) > 1 else 0
    top = 0.2 + 0.24 * rows + (0.35 if title else 0.0)
    figure = new_figure(left + WIDTH + 0.25, bottom + strip_height + gap + panel_height + top)
    strip = add_axes(figure, left, bottom, WIDTH, strip_height)
    draw_strip(strip, frames, columns=columns, end=duration)
    strip.tick_params(length=3, labelsize=9, color=FAINT, labelcolor=INK)
    strip.set_xlabel("time (s)", fontsize=10, color=INK)
    panel = add_axes(figure, left, bottom + strip_height + gap, WIDTH, panel_height)
    style_panel(panel, ylabel=ylabel)
    _draw_lines(panel, lines, [(start / fps, end / fps) for start, end in spans])
    panel.set_xlim(0, duration)
    panel.set_xticks(strip.get_xticks())
    panel.set_xlim(0, duration)
    panel.tick_params(labelbottom=False)
    if rows:
        panel.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4, frameon=False, fontsize=9
        )
    if title:
        height = figure.get_size_inches()[1]
        place = left / figure.get_size_inches()[0]
        figure.text(place, 1 - 0.25 / height, title, fontsize=13, va="center", color=INK)
    return figure


def _draw_lines(
    axes: Any, lines: Mapping[str, list[float]], spans: list[tuple[float, float]]
) -> None:
    centres = [(start + end) / 2 for start, end in spans]
    styles = line_styles(list(lines))
    for name, values in lines.items():
        colour, marker = styles[name]
        axes.hlines(
            values,
            [start for start, _ in spans],
            [end for _, end in spans],
            color=colour,
            linewidth=3,
            alpha=0.25,
        )
        axes.plot(
            centres,
            values,
            color=colour,
            marker=marker,
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linewidth=1.6,
            label=spoken(name),
        )
