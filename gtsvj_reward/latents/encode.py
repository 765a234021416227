"""Folders of videos to folders of latent files, resumable and in shards."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.dtypes import dtype_name
from gtsvj_reward.files import full_disk_named, remove_parts_in, write_text
from gtsvj_reward.latents.sources import (
    UnreadableVideoError,
    VideoTooShortError,
    find_videos,
    source_sha256,
)
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import (
    SUFFIX,
    ClipInfo,
    LatentClip,
    LatentFileError,
    clip_info,
    save_clip,
)
from gtsvj_reward.latents.vae_family import TileChoice
from gtsvj_reward.latents.video import SPACE_RULE, TIME_RULE, read_video
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.progress import Progress

_LONGEST_NAME = 255
"""Bytes; the limit of most file systems."""


class EncodeMismatchError(ValueError):
    """A latent file in the output folder that was made from something else or in another way."""


@dataclass
class EncodeReport:
    """What became of the clips of one process."""

    encoded: list[Path] = field(default_factory=list)
    """Sources that were encoded now."""
    already_done: list[Path] = field(default_factory=list)
    """Sources whose latent file was there, with the same settings and the same content."""
    too_short: list[tuple[Path, str]] = field(default_factory=list)
    """Sound sources with fewer frames than were asked for; they have no latent file."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """Sources that cannot be read, with the reason; they have no latent file."""
    passed_over: list[str] = field(default_factory=list)
    """What else is in the folder, counted by kind; see `find_videos`."""


def encode_folder(
    videos: str | Path,
    out: str | Path,
    *,
    vae: Any,
    space: LatentSpace,
    fps: float,
    height: int,
    width: int,
    num_frames: int | None = None,
    max_frames: int | None = None,
    start: float = 0.0,
    frames_fps: float | None = None,
    tile: TileChoice = "auto",
    overwrite: bool = False,
    process_index: int = 0,
    num_processes: int = 1,
    progress: bool = True,
) -> EncodeReport:
    """Encode every video below a folder to a latent file at the same relative path.

    `a/x.mp4` becomes `a/x.mp4.safetensors`. Files appear whole or not at all, so a run that was
    killed is resumed by calling this again. Videos that cannot be read are collected, written to
    `unreadable.json` (`unreadable-<process_index>.json` with several processes), and the rest
    goes on; videos with too few frames likewise in `too_short.json`. Running out of memory, a full
    disk or non-finite latents stop the run. A name that is too long for the suffix is cut and ends
    in a hash; the file still says where the clip comes from.

    Args:
        videos: folder with video files and folders of frames; see `find_videos`.
        out: folder for the latent files; made if need be.
        vae: the VAE of `space`, on the device to use.
        space: latent space, stored in each file.
        fps: frames per second, as in `read_video`, like the next six.
        height: in pixels, a multiple of 8.
        width: in pixels, a multiple of 8.
        num_frames: 4f + 1; None takes the longest clip of each video.
        max_frames: 4f + 1; the longest clip of each video, but no longer than this.
        start: seconds to skip.
        frames_fps: frames per second of folders of frames.
        tile: as in `LatentSpace.encode`.
        overwrite: replace files made with other settings or from other content, instead of
            rejecting; finished files that match are kept all the same.
        process_index: this process takes clips `process_index::num_processes`.
        num_processes: processes that share the work.
        progress: show a progress bar, on process 0.

    Raises:
        EncodeMismatchError: for a latent file with other settings, before anything is encoded, or
            from a source that has changed since.
        FolderInUseError: if another run writes to `out`. With several processes the caller sees to
            that, and calls `remove_torn` in one of them first.
        ValueError: for an empty folder, or a size that the VAE cannot encode.
    """
    videos, out = Path(videos), Path(out)
    if not 0 <= process_index < num_processes:
        raise ValueError(f"expected process_index in 0..{num_processes - 1}, got {process_index}")
    family = space.family(vae)
    chosen = family.chosen_tile(tile)
    family.check(height, width, chosen)
    for limit in (num_frames, max_frames):
        if limit is not None:
            space.latent_frames(limit)
    job = _Job(
        vae=vae,
        space=space,
        reading={
            "fps": float(fps),
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "max_frames": max_frames,
            "start": float(start),
        },
        frames_fps=frames_fps,
        tile=chosen,
        overwrite=overwrite,
    )
    found = find_videos(videos)
    sources = found.videos[process_index::num_processes]
    targets = [with_suffix(out, path.relative_to(videos)) for path in sources]
    for source, target in zip(sources, targets, strict=True):
        job.check_settings(source, target)
    report = EncodeReport(passed_over=found.notes())
    shown = progress and process_index == 0
    with folder_lock(out) if num_processes == 1 else nullcontext():
        if num_processes == 1:
            remove_torn(out)
        job.run_all(videos, dict(zip(sources, targets, strict=True)), report, shown)
    for name, left_out in (("unreadable", report.unreadable), ("too_short", report.too_short)):
        if process_index == 0:
            _remove_lists(out, name, num_processes)
        own = f"{name}.json" if num_processes == 1 else f"{name}-{process_index}.json"
        _write_list(out / own, videos, left_out)
    return report


def remove_torn(out: Path) -> None:
    """Remove what runs that were killed while writing left below a folder, each folder read once.

    With several processes one of them does it, before any of them writes.
    """
    for folder, _, _ in os.walk(out):
        remove_parts_in(Path(folder))


def with_suffix(out: Path, relative: Path, suffix: str = SUFFIX) -> Path:
    """The file of a source in another folder; a name that the suffix makes too long is cut."""
    raw, end = os.fsencode(relative.name), suffix
    if len(raw) + len(end) > _LONGEST_NAME:
        end = f"-{hashlib.sha256(raw).hexdigest()[:16]}{suffix}"
        raw = raw[: _LONGEST_NAME - len(end)].decode(errors="ignore").encode()
    return out / relative.parent / f"{os.fsdecode(raw)}{end}"


@dataclass(frozen=True, kw_only=True)
class _Job:
    """How each clip of a run is made, and how a finished one is told."""

    vae: Any
    space: LatentSpace
    reading: dict[str, Any]
    frames_fps: float | None
    tile: tuple[int, int] | None
    overwrite: bool

    def run_all(
        self, videos: Path, targets: Mapping[Path, Path], report: EncodeReport, shown: bool
    ) -> None:
        """Encode clips of a folder one after the other; only those made now are timed."""
        with Progress(len(targets), "encode", shown=shown) as bar:
            for source, target in targets.items():
                before = len(report.encoded)
                self.run(source, target, source.relative_to(videos).as_posix(), report)
                (bar.update if len(report.encoded) > before else bar.skip)(1)

    def run(self, source: Path, target: Path, name: str, report: EncodeReport) -> None:
        """Encode one clip, unless it is done or cannot be read, and report it."""
        digest = source_sha256(source)
        if target.exists() and self._is_done(source, target, digest):
            report.already_done.append(source)
            return
        frames_fps = self.frames_fps if source.is_dir() else None
        try:
            clip = read_video(
                source,
                frames_fps=frames_fps,
                temporal_compression=self.space.temporal_compression,
                **self.reading,
            )
        except VideoTooShortError as error:
            report.too_short.append((source, error.reason))
            return
        except UnreadableVideoError as error:
            report.unreadable.append((source, error.reason))
            return
        with torch.no_grad():
            latents = self.space.encode(clip.batch(), self.vae, tile=self.tile)[0].cpu()
        made = LatentClip(
            latents=latents,
            space=self.space,
            fps=clip.fps,
            num_frames=len(clip.frames),
            source=name,
            source_sha256=digest,
            settings=self.settings(source),
        )
        with full_disk_named(target):
            save_clip(target, made)
        report.encoded.append(source)

    def settings(self, source: Path) -> dict[str, Any]:
        """What the latents of a source depend on, besides the source and the VAE."""
        return {
            **self.reading,
            "frames_fps": self.frames_fps if source.is_dir() else None,
            "tile": None if self.tile is None else list(self.tile),
            "vae_dtype": dtype_name(self.vae.dtype),
            "time_rule": TIME_RULE,
            "space_rule": SPACE_RULE,
        }

    def check_settings(self, source: Path, target: Path) -> None:
        """Reject a folder of frames without a rate, and a finished file made in another way."""
        if source.is_dir() and self.frames_fps is None:
            raise ValueError(
                f"{source} is a folder of frames: give their frame rate, --frames_fps "
                "(`frames_fps`)"
            )
        if target.exists() and not self.overwrite:
            differences = self._differences(source, clip_info(target))
            if differences:
                raise mismatch(target, differences)

    def _is_done(self, source: Path, target: Path, digest: str) -> bool:
        try:
            info = clip_info(target)
        except LatentFileError:
            return False
        differences = self._differences(source, info)
        if info.source_sha256 != digest:
            differences.append("the content of the source has changed since")
        if differences and not self.overwrite:
            raise mismatch(target, differences)
        return not differences

    def _differences(self, source: Path, info: ClipInfo) -> list[str]:
        return settings_differences(info, self.settings(source), self.space)


def settings_differences(info: ClipInfo, settings: dict[str, Any], space: LatentSpace) -> list[str]:
    """What of a finished clip's settings and space is not what it would be now."""
    now = {**settings, "space": space}
    then = {**info.settings, "space": info.space}
    return [
        f"{key} was {then.get(key)}, is now {now.get(key)}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]


def mismatch(target: Path, differences: list[str]) -> EncodeMismatchError:
    """The rejection of a finished file that was made otherwise."""
    return EncodeMismatchError(
        f"{target} was made otherwise: {'; '.join(differences)}. Choose another output folder, or "
        "replace such files with --overwrite (`overwrite=True`)"
    )


def _remove_lists(out: Path, name: str, num_processes: int) -> None:
    """Remove lists of an earlier run with another number of processes."""
    own = {f"{name}-{index}.json" for index in range(num_processes)}
    for path in out.glob(f"{name}*.json"):
        if path.name not in (own if num_processes > 1 else {f"{name}.json"}):
            path.unlink()


def _write_list(path: Path, videos: Path, left_out: list[tuple[Path, str]]) -> None:
    """Leave the list beside the latents, or remove that of an earlier run."""
    if not left_out:
        path.unlink(missing_ok=True)
        return
    rows = [
        {"path": source.relative_to(videos).as_posix(), "reason": reason}
        for source, reason in left_out
    ]
    write_text(path, json.dumps(rows, indent=2) + "\n")
