"""Where frames come from: video files through ffmpeg, and folders of pictures."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from math import gcd
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from gtsvj_reward.files import natural_order

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_MISSING_END = 0.5
"""Seconds that a file may end before its header says (a sound track may be longer)."""
_QUIET = ["-nostdin"]
"""An ffmpeg that listens to keys prints a hint about them into the middle of its description of the
stream, now and then, and a sound video then looks like none."""
_NTSC = {
    23.98: Fraction(24000, 1001),
    29.97: Fraction(30000, 1001),
    59.94: Fraction(60000, 1001),
}
"""Rates as ffmpeg prints them, and what they are."""
_GIF_DEFAULT = 100
"""Milliseconds that a picture without a time is shown for, as browsers do."""
_PICTURE_ERRORS = (UnidentifiedImageError, OSError, SyntaxError, EOFError, ValueError)

RGB = NDArray[np.uint8]


class UnreadableVideoError(ValueError):
    """A video that cannot be read; `path` and `reason` say which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path
        self.reason = reason


class VideoTooShortError(UnreadableVideoError):
    """A sound video with fewer frames than were asked for."""


def pictures(folder: Path) -> list[Path]:
    """The png and jpg files directly in a folder, in natural order; hidden files do not count."""
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
        ),
        key=natural_order,
    )


def list_videos(folder: Path) -> list[Path]:
    """Video files, and sub-folders that hold pictures, anywhere below a folder; sorted by path.

    Files count by suffix (`VIDEO_SUFFIXES`); hidden ones, and what lies in hidden folders, do
    not. Pictures directly in `folder` are no clip: each clip needs a folder of its own.

    Raises:
        ValueError: if `folder` is not a folder, or holds no clip.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder of videos, got {folder}, which is not a folder")
    found = []
    for path in folder.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if (path.is_dir() and pictures(path)) or (
            path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
        ):
            found.append(path)
    if not found:
        raise ValueError(
            f"no videos below {folder}: expected files ending in {', '.join(VIDEO_SUFFIXES)}, or "
            "sub-folders of png or jpg frames, one per clip"
        )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def source_sha256(path: Path) -> str:
    """SHA-256 of a video file, or of the names and contents of a folder's pictures."""
    digest = hashlib.sha256()
    for file in pictures(path) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def open_source(path: Path, frames_fps: float | None) -> tuple[float, Iterator[RGB]]:
    """Frames per second of a source, and its frames `(height, width, 3)` in order.

    Args:
        path: a video file, or a folder of pictures.
        frames_fps: frames per second of a folder of pictures; a video file knows its own.

    Raises:
        UnreadableVideoError: at once or while iterating, with what is wrong.
        ValueError: for a folder of pictures without `frames_fps`.
    """
    if path.is_dir():
        if frames_fps is None:
            raise ValueError(f"{path} is a folder of frames: say how fast they run, `frames_fps=`")
        return frames_fps, _folder_frames(path)
    if not path.exists():
        raise UnreadableVideoError(path, "there is no such file")
    if path.stat().st_size == 0:
        raise UnreadableVideoError(path, "the file is empty")
    return _open_gif(path) if path.suffix.lower() == ".gif" else _open_file(path)


def _open_gif(path: Path) -> tuple[float, Iterator[RGB]]:
    """A gif shows each picture for a time of its own: a grid of the common divisor holds all."""
    if not path.read_bytes().rstrip(b"\0").endswith(b";"):
        raise UnreadableVideoError(path, "not a whole gif: its end is missing")
    times = []
    try:
        with Image.open(path) as gif:
            for picture in ImageSequence.Iterator(gif):
                picture.load()
                times.append(int(picture.info.get("duration", 0)) or _GIF_DEFAULT)
    except _PICTURE_ERRORS as error:
        raise UnreadableVideoError(path, f"damaged gif ({error})") from error
    step = gcd(*times)

    def frames() -> Iterator[RGB]:
        with Image.open(path) as gif:
            for picture, time in zip(ImageSequence.Iterator(gif), times, strict=True):
                frame = np.asarray(picture.convert("RGB"))
                for _ in range(time // step):
                    yield frame

    return 1000 / step, frames()


def _open_file(path: Path) -> tuple[float, Iterator[RGB]]:
    reader = imageio_ffmpeg.read_frames(str(path), input_params=_QUIET)
    try:
        meta = next(reader)
    except (OSError, RuntimeError, StopIteration, IndexError, KeyError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        detail = lines[-1].strip() if lines else type(error).__name__
        raise UnreadableVideoError(path, f"not a video, or cut short ({detail})") from error
    finally:
        reader.close()
    if not meta["fps"] > 0 or min(meta["size"]) < 1:
        raise UnreadableVideoError(path, "it has no video track with a known frame rate")
    fps = _NTSC.get(meta["fps"], Fraction(meta["fps"]).limit_denominator(100))
    return float(fps), _file_frames(path, fps, meta["size"], float(meta["duration"]))


def _file_frames(
    path: Path, fps: Fraction, size: tuple[int, int], duration: float
) -> Iterator[RGB]:
    reader = imageio_ffmpeg.read_frames(
        str(path),
        # ffmpeg hides damage by repeating and patching up frames unless it is told to stop there,
        input_params=[*_QUIET, "-xerror", "-err_detect", "explode"],
        # and it delivers a variable rate at another constant one than it reports.
        output_params=["-r", str(fps)],
    )
    count = 0
    with closing(reader):
        try:
            next(reader)
            for raw in reader:
                count += 1
                yield np.frombuffer(raw, np.uint8).reshape(size[1], size[0], 3)
        except RuntimeError as error:
            raise UnreadableVideoError(path, f"damaged after frame {count}") from error
    announced = round(duration * float(fps))
    if count < (duration - _MISSING_END) * fps or count == 0:
        raise UnreadableVideoError(
            path, f"cut short or damaged: {count} frames can be read, its header says {announced}"
        )


def _folder_frames(folder: Path) -> Iterator[RGB]:
    files = pictures(folder)
    if not files:
        raise UnreadableVideoError(folder, "the folder holds no png or jpg files")
    size: tuple[int, int] | None = None
    for file in files:
        try:
            with Image.open(file) as picture:
                frame = np.asarray(picture.convert("RGB"))
        except _PICTURE_ERRORS as error:
            raise UnreadableVideoError(folder, f"{file.name}: {error}") from error
        if size is not None and frame.shape[:2] != size:
            raise UnreadableVideoError(
                folder,
                f"{file.name} has {frame.shape[1]}x{frame.shape[0]} pixels, the others "
                f"{size[1]}x{size[0]}",
            )
        size = (frame.shape[0], frame.shape[1])
        yield frame
