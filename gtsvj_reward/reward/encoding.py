"""How a judge wants videos read before they are encoded for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gtsvj_reward.judge import JudgeConfig


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How videos are read, as `read_video` takes it."""

    fps: float
    """Frames per second."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_frames: int
    """4f + 1 for CogVideoX."""
    at_most: bool = False
    """Whether shorter videos are read as far as they go, and `num_frames` is the most."""

    def arguments(self) -> dict[str, Any]:
        """Arguments for `read_video` and `encode_folder`."""
        return {
            "fps": self.fps,
            "height": self.height,
            "width": self.width,
            "num_frames": None if self.at_most else self.num_frames,
            "max_frames": self.num_frames if self.at_most else None,
        }


def reading_for(
    config: JudgeConfig,
    *,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    any_length: bool = False,
) -> Reading:
    """How to read videos for a judge: what is given, else the one value it was trained on.

    Args:
        config: the judge's.
        fps: frames per second.
        height: in pixels.
        width: in pixels.
        num_frames: 4f + 1 for CogVideoX.
        any_length: if no number of frames is given and the judge was trained on several, read as
            many frames of each video as possible, up to the longest.

    Raises:
        ValueError: naming all values that are not given although the judge was trained on several,
            with their range.
    """
    given = {"fps": fps, "height": height, "width": width, "num_frames": num_frames}
    trained = dict(_trained_ranges(config))
    missing = []
    at_most = any_length and num_frames is None and "num_frames" in trained
    if at_most:
        shortest, longest = trained["num_frames"]
        trained["num_frames"], at_most = (longest, longest), shortest < longest
    for name, value in given.items():
        low, high = trained.get(name, (None, None))
        if value is None and (low is None or low != high):
            seen = "unknown" if low is None else f"{low:g} to {high:g}"
            missing.append(f"--{name} (trained on: {seen})")
    if missing:
        raise ValueError(f"say how to read the videos: {', '.join(missing)}")
    chosen = {name: trained[name][0] if value is None else value for name, value in given.items()}
    return Reading(
        fps=float(chosen["fps"]),
        height=int(chosen["height"]),
        width=int(chosen["width"]),
        num_frames=int(chosen["num_frames"]),
        at_most=at_most,
    )


def _trained_ranges(config: JudgeConfig) -> Iterator[tuple[str, tuple[float, float]]]:
    """Trained range of each way to read a video, in frames per second, pixels and frames."""
    trained, space = config.geometry, config.latent_space
    if trained is None:
        return
    yield "fps", trained.fps
    pixels = space.spatial_compression
    yield "height", (trained.height[0] * pixels, trained.height[1] * pixels)
    yield "width", (trained.width[0] * pixels, trained.width[1] * pixels)
    shortest, longest = (space.video_frames(steps) for steps in trained.latent_frames)
    yield "num_frames", (shortest, longest)
