"""Videos as tensors: read with an explicit rule for time and space."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from gtsvj_reward.latents.allowance import DecodeLimit
from gtsvj_reward.latents.checks import latent_frames
from gtsvj_reward.latents.frames import RGB, Frame, Source, nearest
from gtsvj_reward.latents.sources import UnreadableVideoError, VideoTooShortError, check_name
from gtsvj_reward.latents.stills import folder_source, gif_source
from gtsvj_reward.latents.tracks import track_source

TIME_RULE = "nearest source frame by its own timestamp, halves up"
READING = ("fps", "height", "width", "start", "frames_fps")
"""Settings of a clip that say how its video was read."""
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
    """Frames per second of the source, on average."""
    source_size: tuple[int, int]
    """Height and width of the source as it is shown, in pixels: upright, with square pixels."""
    source_indices: tuple[int, ...]
    """For each frame, which picture of the source it is, from 0."""

    def batch(self) -> Float[Tensor, "1 time 3 height width"]:
        """The frames as `LatentSpace.encode` takes them: in [0, 1], with a batch axis."""
        return self.frames.permute(0, 3, 1, 2)[None].float() / 255


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
    limit: DecodeLimit | None = None,
) -> VideoClip:
    """Read part of a video at a given rate and size.

    Time: frame k is the source frame whose timestamp is nearest to `start + k / fps` seconds; of
    two equally near the later one. Time is counted from the first picture, also where sound begins
    before it, and the last picture lasts as long as the file says. No frame is ever mixed from two;
    where `fps` is above the rate of the source, frames repeat. A gif shows a picture for as long as
    it says: a long one counts as several equal ones.

    Space: the largest centred region with the target's ratio of height to width is resized to
    the target (bilinear, antialiased), which is resizing until both sides cover the target and
    then cropping the centre. Frames of the target size are taken as they are. Pixels that are not
    square are stretched to the shape in which they are shown, and pictures are turned as the file
    (or EXIF) says.

    Colour: 8 bits, standard dynamic range; HDR (PQ, HLG) is rejected. What is transparent is put on
    black. 16 bits of grey are scaled to 8.

    Decoding stops at damage, and a file that ends more than half a second before its header says is
    rejected; damage after the last frame that is needed is not looked for.

    Args:
        path: a video file (mp4, gif, webm, ... what ffmpeg reads) or a folder of png or jpg
            frames in natural order, all of one size.
        fps: frames per second wanted.
        height: of the result, in pixels.
        width: of the result, in pixels.
        num_frames: 4f + 1; None takes the longest such clip from `start` to the end, all held in
            memory.
        max_frames: 4f + 1; the longest clip, but no longer than this. Goes without `num_frames`.
        start: seconds to skip after the first picture.
        frames_fps: frames per second of a folder of frames.
        temporal_compression: of the VAE, in place of the 4 in 4f + 1.
        limit: the most that is decoded, for a video file from somebody else; None: all of it.

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
        raise ValueError(
            f"pass `num_frames` or `max_frames`, got {num_frames} and {max_frames} (--num_frames, "
            "--max_frames)"
        )
    wanted = max_frames if num_frames is None else num_frames
    if wanted is not None:
        latent_frames(wanted, temporal_compression)
    path = Path(path)
    check_name(path)
    source = _open(path, frames_fps, limit)
    seen = 0

    def counted() -> Iterator[Frame]:
        nonlocal seen
        for frame in source.frames:
            seen += 1
            yield frame

    steps = range(wanted) if wanted else count()
    times = (_exact(start) + k / _exact(fps) for k in steps)
    frames: list[RGB] = []
    indices: list[int] = []
    size = (0, 0)
    for frame in nearest(counted(), times):
        picture = frame.picture()
        if not frames:
            size = (picture.shape[0], round(picture.shape[1] * frame.pixel_aspect))
        frames.append(_fitted(picture, height, width, float(frame.pixel_aspect)))
        indices.append(frame.index)
    rest = (len(frames) - 1) % temporal_compression
    kept = len(frames) - rest if num_frames is None else num_frames
    if not frames or len(frames) < kept:
        longest = f"ask for at most {len(frames) - rest} frames, or for a higher fps"
        raise VideoTooShortError(
            path,
            f"{seen} frames at {source.fps:g} fps give {len(frames)} frames at {fps:g} fps from "
            f"{start:g} s on, needed {num_frames or 1}: "
            f"{longest if frames else 'it ends before the start'}",
        )
    return VideoClip(
        frames=torch.from_numpy(np.stack(frames[:kept])),
        fps=float(fps),
        source=path,
        source_fps=float(source.fps),
        source_size=size,
        source_indices=tuple(indices[:kept]),
    )


def _open(path: Path, frames_fps: float | None, limit: DecodeLimit | None) -> Source:
    if limit is not None and (path.is_dir() or path.suffix.lower() == ".gif"):
        raise ValueError(f"`limit` is for video files, {path} is not one")
    if path.is_dir():
        if frames_fps is None:
            raise ValueError(
                f"{path} is a folder of frames: give their frame rate, --frames_fps (`frames_fps`)"
            )
        return folder_source(path, frames_fps)
    if not path.exists():
        raise UnreadableVideoError(path, "there is no such file")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(path, "the file is empty")
    return gif_source(path) if path.suffix.lower() == ".gif" else track_source(path, limit)


def _exact(value: float) -> Fraction:
    return Fraction(value).limit_denominator(1_000_000)


def _fitted(frame: RGB, height: int, width: int, pixel_aspect: float) -> RGB:
    """A frame cropped and resized to `height` x `width`."""
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width) and pixel_aspect == 1:
        return frame
    scale = max(height / rows, width / (columns * pixel_aspect))
    top, left = (rows - height / scale) / 2, (columns - width / scale / pixel_aspect) / 2
    box = (max(left, 0), max(top, 0), min(columns - left, columns), min(rows - top, rows))
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture)
