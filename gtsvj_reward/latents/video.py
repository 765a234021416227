"""Videos as tensors: read with an explicit rule for time and space, and write."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from gtsvj_reward.latents.sources import RGB, VideoTooShortError, open_source

TIME_RULE = "nearest source frame, halves up"
SPACE_RULE = "centre crop to the target's shape, antialiased bilinear resize"


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """Frames of a video at the rate and size that were asked for, and where they come from."""

    frames: UInt8[Tensor, "time height width 3"]
    """RGB, 0 to 255."""
    fps: float
    """Frames per second of `frames`."""
    source: Path
    """The file or folder that was read."""
    source_fps: float
    """Frames per second of the source."""
    source_size: tuple[int, int]
    """Height and width of the source in pixels."""
    source_indices: tuple[int, ...]
    """For each frame, which frame of the source it is, from 0."""

    def batch(self) -> Float[Tensor, "1 time 3 height width"]:
        """The frames as `LatentSpace.encode` takes them: in [0, 1], with a batch axis."""
        return self.frames.permute(0, 3, 1, 2)[None].float() / 255


def source_index(k: int, *, fps: float, source_fps: float, start: float = 0.0) -> int:
    """Frame of the source that is shown as frame `k`: the one nearest to `start + k / fps`.

    Frame i of the source stands at i / source_fps seconds; of two equally near frames the later
    one is taken. No frame is ever mixed from two; where `fps` is above `source_fps`, frames repeat.
    """
    rate, source_rate, first = (_exact(x) for x in (fps, source_fps, start))
    return int((first + k / rate) * source_rate + Fraction(1, 2))


def _exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1_000_000)


def read_video(
    path: str | Path,
    *,
    fps: float,
    height: int,
    width: int,
    num_frames: int | None = None,
    max_frames: int | None = None,
    start: float = 0.0,
    frames_fps: float | None = None,
    temporal_compression: int = 4,
) -> VideoClip:
    """Read part of a video at a given rate and size.

    Time: frame k is the source frame nearest to `start + k / fps` seconds (`source_index`).
    Space: the largest centred region with the target's ratio of height to width is resized to
    the target (bilinear, antialiased), which is resizing until both sides cover the target and
    then cropping the centre. Frames of the target size are taken as they are.

    A variable frame rate is laid on a grid of the average rate that ffmpeg reports, or, for gif,
    of the greatest rate that all its times are multiples of. Decoding stops at damage, and a file
    that ends more than half a second before its header says is refused; damage after the last
    frame that is needed is not looked for.

    Args:
        path: a video file (mp4, gif, webm, ... what ffmpeg reads) or a folder of png or jpg
            frames in natural order, all of one size.
        fps: frames per second wanted.
        height: of the result, in pixels.
        width: of the result, in pixels.
        num_frames: 4f + 1; None takes the longest such clip from `start` to the end, all held in
            memory.
        max_frames: 4f + 1; the longest clip, but no longer than this. Goes without `num_frames`.
        start: seconds to skip.
        frames_fps: frames per second of a folder of frames.
        temporal_compression: of the VAE, in place of the 4 in 4f + 1.

    Raises:
        UnreadableVideoError: if the file is missing, empty, no video, damaged or cut short.
        VideoTooShortError: if there are fewer frames than asked for, with both numbers.
        ValueError: for impossible arguments.
    """
    if not (fps > 0 and start >= 0 and height > 0 and width > 0 and (frames_fps or 1) > 0):
        raise ValueError(
            "expected positive fps, height, width and frames_fps, and start >= 0, got "
            f"{fps=}, {height=}, {width=}, {frames_fps=}, {start=}"
        )
    if num_frames is not None and max_frames is not None:
        raise ValueError(f"pass `num_frames` or `max_frames`, got {num_frames} and {max_frames}")
    wanted = num_frames or max_frames
    if wanted is not None and (wanted < 1 or (wanted - 1) % temporal_compression):
        few = ", ".join(str(f * temporal_compression + 1) for f in range(3))
        raise ValueError(
            f"expected {temporal_compression}f + 1 frames ({few}, ...), got {num_frames=}, "
            f"{max_frames=}"
        )
    path = Path(path)
    source_fps, source = open_source(path, frames_fps)
    frames: list[RGB] = []
    indices: list[int] = []
    size, seen = (0, 0), 0
    for index, frame in _resampled(source, fps, source_fps, start, wanted):
        seen = index + 1
        if frame is not None:
            size = (frame.shape[0], frame.shape[1])
            frames.append(_fitted(frame, height, width))
            indices.append(index)
    rest = (len(frames) - 1) % temporal_compression
    kept = len(frames) - rest if num_frames is None else num_frames
    if not frames or len(frames) < kept:
        raise VideoTooShortError(
            path,
            f"{seen} frames at {source_fps:g} fps give {len(frames)} frames at {fps:g} fps from "
            f"{start:g} s on, needed {num_frames or 1}: ask for fewer frames or a lower rate",
        )
    return VideoClip(
        frames=torch.from_numpy(np.stack(frames[:kept])),
        fps=float(fps),
        source=path,
        source_fps=float(source_fps),
        source_size=size,
        source_indices=tuple(indices[:kept]),
    )


def _resampled(
    source: Iterator[RGB], fps: float, source_fps: float, start: float, num_frames: int | None
) -> Iterator[tuple[int, RGB | None]]:
    """Source frames with their index, None in place of those that are skipped, repeats included."""
    wanted = count() if num_frames is None else iter(range(num_frames))
    target = source_index(next(wanted), fps=fps, source_fps=source_fps, start=start)
    for index, frame in enumerate(source):
        if index < target:
            yield index, None
        while index == target:
            yield index, frame
            k = next(wanted, None)
            if k is None:
                return
            target = source_index(k, fps=fps, source_fps=source_fps, start=start)


def _fitted(frame: RGB, height: int, width: int) -> RGB:
    """A frame cropped and resized to `height` x `width`."""
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width):
        return frame
    scale = max(height / rows, width / columns)
    top, left = (rows - height / scale) / 2, (columns - width / scale) / 2
    box = (max(left, 0), max(top, 0), min(columns - left, columns), min(rows - top, rows))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture)


def write_video(path: str | Path, frames: UInt8[Tensor, "time height width 3"], fps: float) -> None:
    """Write frames as mp4 (H.264, nearly lossless luma), gif, or a folder of png.

    Args:
        path: ends in .mp4 or .gif; a name without a suffix becomes a folder of numbered png
            files, which are exact but do not hold `fps`.
        frames: RGB, 0 to 255; even height and width for mp4.
        fps: frames per second; gif holds hundredths of a second, so it must divide 100.

    Raises:
        ValueError: for another suffix, or what the format cannot hold.
    """
    path = Path(path)
    pictures = frames.cpu().numpy()
    if len(pictures) == 0:
        raise ValueError(f"no frames to write to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".mp4":
        _write_mp4(path, pictures, fps)
    elif path.suffix.lower() == ".gif":
        if (100 / fps) % 1:
            raise ValueError(f"gif cannot hold {fps:g} fps: take one of 10, 12.5, 20, 25, 50")
        first, *rest = (Image.fromarray(picture) for picture in pictures)
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    elif path.suffix == "":
        path.mkdir(exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"{path} is not empty: write frames to a new folder")
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(path / f"{number:06d}.png")
    else:
        raise ValueError(f"expected .mp4, .gif or a folder without suffix, got {path.name!r}")


def _write_mp4(path: Path, pictures: RGB, fps: float) -> None:
    _, height, width, _ = pictures.shape
    if height % 2 or width % 2:
        raise ValueError(f"mp4 needs even height and width, got {height}x{width}: crop by one")
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        quality=None,
        macro_block_size=2,
        output_params=["-crf", "10"],
    )
    writer.send(None)
    for picture in pictures:
        writer.send(np.ascontiguousarray(picture))
    writer.close()
