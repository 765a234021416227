"""The clips that are labelled: videos below a folder, in groups of one prompt."""

import mimetypes
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.annotations import find_clips
from gtsvj_reward.annotations.names import NameIndex
from gtsvj_reward.latents.sources import list_videos
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.scoring.groups import folder_groups, read_groups
from gtsvj_reward.tables import first_few

PLAYED = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}
"""Suffixes that browsers may play -> media type."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video that is labelled."""

    number: int
    """Its place in the set."""
    name: str
    """Its path below the folder of videos, as labels call it."""
    path: Path
    """The file."""
    group: str
    """Clips of one group are compared: those of a prompt, or of a folder."""
    prompt: str | None
    """Its prompt, if known."""
    latents: ClipInfo | None
    """Its latent file, if there is one."""

    @property
    def media_type(self) -> str:
        """Of the video."""
        return PLAYED[self.path.suffix.lower()]


class ClipSet:
    """Clips in order, by name, and by group.

    Args:
        folder: of the videos.
        clips: numbered from 0.
        left_out: reason -> number of files that are not shown.
    """

    def __init__(
        self, folder: Path, clips: Sequence[Clip], left_out: Mapping[str, int] | None = None
    ) -> None:
        self.folder, self.left_out = folder, dict(left_out or {})
        self.clips = tuple(clips)
        self.numbers = {clip.name: clip.number for clip in self.clips}
        self.groups: dict[str, list[int]] = {}
        for clip in self.clips:
            self.groups.setdefault(clip.group, []).append(clip.number)

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def __getitem__(self, number: int) -> Clip:
        return self.clips[number]

    def file_of(self, number: int) -> Path:
        """The file of a clip, wherever links lead now.

        Raises:
            FileNotFoundError: if there is no such clip, the file is gone, or a link leads out of
                the folder.
        """
        if not 0 <= number < len(self.clips):
            raise FileNotFoundError(f"there are {len(self.clips)} clips, no number {number}")
        path = self.clips[number].path.resolve()
        if not path.is_file() or not path.is_relative_to(self.folder.resolve()):
            raise FileNotFoundError(f"clip {number} is no longer in the folder of videos")
        return path


def read_clips(
    folder: str | Path,
    *,
    prompts: str | Path | None = None,
    latents: str | Path | None = None,
    allow_missing_latents: bool = False,
) -> ClipSet:
    """The videos below a folder that a browser may play.

    Without `prompts`, videos of one first folder are a group; videos that are in no folder are one
    group together.

    Args:
        folder: of videos.
        prompts: table with the columns `video` and `prompt`; videos of one prompt are a group.
        latents: folder of their latent files, found by the source that each records.
        allow_missing_latents: leave out videos without a latent file instead of raising an error.

    Raises:
        ValueError: if there are no such videos, a video has no prompt in the table, or, unless
            allowed, no latent file.
    """
    folder = Path(folder)
    left_out: Counter[str] = Counter()
    names: dict[str, Path] = {}
    for path in list_videos(folder):
        reason = reason_against(path, folder)
        if reason is None:
            names[path.relative_to(folder).as_posix()] = path
        else:
            left_out[reason] += 1
    if not names:
        raise ValueError(
            f"no video below {folder} can be shown: {dict(left_out)}; expected "
            f"{', '.join(PLAYED)} (a folder of pictures can be written as mp4)"
        )
    found: Mapping[str, ClipInfo] = {}
    if latents is not None:
        match = find_clips(names, LatentFolder(latents), allow_missing=allow_missing_latents)
        found = match.clips
        left_out["without a latent file"] += len(match.missing)
        names = {name: path for name, path in names.items() if name in found}
        if not names:
            raise ValueError(f"none of the videos below {folder} has a latent file in {latents}")
    texts = None if prompts is None else prompts_of(list(names), prompts)
    groups = texts or groups_of(list(names))
    clips = [
        Clip(
            number=number,
            name=name,
            path=path,
            group=groups[name],
            prompt=None if texts is None else texts[name],
            latents=found.get(name),
        )
        for number, (name, path) in enumerate(names.items())
    ]
    return ClipSet(folder, clips, +left_out)


def reason_against(path: Path, folder: Path) -> str | None:
    """Why a browser is not shown a clip; None if it is."""
    if path.is_dir():
        return "folders of pictures, which no browser plays"
    if path.suffix.lower() not in PLAYED:
        return (
            f"{mimetypes.types_map.get(path.suffix.lower(), path.suffix)}, not played by browsers"
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        return "links that lead out of the folder"
    return None


def prompts_of(names: Sequence[str], table: str | Path) -> dict[str, str]:
    """Video -> prompt, for every video.

    Raises:
        ValueError: for videos that no row, or more than one, is about.
    """
    rows = read_groups(table)
    index = NameIndex(rows)
    matches = {name: index.matches(name) for name in names}
    wrong = [name for name, found in matches.items() if len(found) != 1]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(names)} videos have no prompt in {table}, or several: "
            f"{first_few(wrong)}; it must have one row for each video"
        )
    return {name: rows[found[0]] for name, found in matches.items()}


def groups_of(names: Sequence[str]) -> dict[str, str]:
    """Video -> its group, where no prompts are known."""
    if not any("/" in name for name in names):
        return dict.fromkeys(names, "all")
    return folder_groups(names)
