"""Where frames come from: video files, and folders of pictures."""

import hashlib
from pathlib import Path

from gtsvj_reward.files import natural_order

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class UnreadableVideoError(ValueError):
    """A video that cannot be read; `path` and `reason` say which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path
        self.reason = reason


class VideoTooShortError(UnreadableVideoError):
    """An intact video with fewer frames than were asked for."""


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
    not. Pictures directly in `folder` are not a clip: each clip needs a folder of its own.

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
