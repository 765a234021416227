"""Where frames come from: video files, and folders of pictures."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

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


def check_name(path: Path) -> None:
    """Reject a name that no text file could hold.

    Raises:
        UnreadableVideoError: for a name that is not UTF-8.
    """
    raw = os.fsencode(path)
    try:
        raw.decode()
    except UnicodeDecodeError:
        shown = Path(raw.decode(errors="backslashreplace"))
        raise UnreadableVideoError(shown, "its name is not UTF-8: rename it") from None


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


@dataclass(frozen=True)
class FoundVideos:
    """What is below a folder."""

    videos: tuple[Path, ...]
    """Video files, and folders that hold pictures, sorted by path."""
    passed_over: Mapping[str, tuple[Path, ...]]
    """Kind of file that is not a video -> paths; hidden files and folders are not among it."""

    def notes(self) -> list[str]:
        """A line for each kind of what was passed over: how many, and the first."""
        return [
            f"{len(paths)} {kind}, the first is {paths[0]}"
            for kind, paths in self.passed_over.items()
        ]


def list_videos(folder: Path) -> list[Path]:
    """The videos that `find_videos` finds.

    Raises:
        ValueError: as `find_videos`.
    """
    return list(find_videos(folder).videos)


def find_videos(folder: Path) -> FoundVideos:
    """Video files, and sub-folders that hold pictures, anywhere below a folder; sorted by path.

    Files count by suffix (`VIDEO_SUFFIXES`); hidden ones, and what lies in hidden folders, do
    not. Pictures directly in `folder` are not a clip: each clip needs a folder of its own. Linked
    files count; linked folders are not followed.

    Raises:
        ValueError: if `folder` is not a folder, or holds no clip.
        OSError: for a folder that cannot be listed.
    """
    if not folder.is_dir():
        raise ValueError(f"expected a folder of videos, got {folder}, which is not a folder")
    found: list[Path] = []
    others: list[tuple[str, Path]] = []
    for here, folders, files in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(here)
        links = [place / name for name in folders if (place / name).is_symlink()]
        others += [("linked folders, which are not followed", path) for path in links]
        shown = [place / name for name in files if not name.startswith(".")]
        frames = [path for path in shown if path.suffix.lower() in PICTURE_SUFFIXES]
        if frames and place != folder:
            found.append(place)
        for path in sorted(set(shown).difference(frames if place != folder else ())):
            kind = _kind(path)
            if kind is None:
                found.append(path)
            else:
                others.append((kind, path))
    passed_over = {
        kind: tuple(path for of, path in others if of == kind)
        for kind, _ in Counter(kind for kind, _ in others).most_common()
    }
    result = FoundVideos(
        tuple(sorted(found, key=lambda path: path.relative_to(folder).parts)), passed_over
    )
    if not found:
        raise ValueError(
            f"no videos below {folder}: expected files ending in {', '.join(VIDEO_SUFFIXES)}, or "
            f"sub-folders of png or jpg frames, one per clip{_besides(result)}"
        )
    return result


def _kind(path: Path) -> str | None:
    """What a file that is not taken for a video is; None for a video."""
    if not path.is_file():
        return "links to nothing" if path.is_symlink() else "neither files nor folders"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return None
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return "pictures that are in no folder of their own"
    return f"files that end in {path.suffix}" if path.suffix else "files without a suffix"


def _besides(found: FoundVideos) -> str:
    return f". There are {'; '.join(found.notes())}" if found.passed_over else ""


def _cannot_list(error: OSError) -> NoReturn:
    raise error


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
