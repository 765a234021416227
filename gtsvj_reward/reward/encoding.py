"""Folders of videos made into latents that a judge can score."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.encode import encode_folder
from gtsvj_reward.latents.sources import list_videos
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.store import SUFFIX, LatentFileError, LatentFolder


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


def folder_kind(folder: str | Path) -> Literal["latents", "videos"]:
    """Whether a folder holds latent files or videos.

    Raises:
        ValueError: if it is no folder, or holds both or neither.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"expected a folder of latent files or videos, got {folder}: no folder")
    latents = next(folder.rglob(f"*{SUFFIX}"), None)
    try:
        video = next(iter(list_videos(folder)))
    except ValueError as error:
        if latents is None:
            raise ValueError(
                f"neither latent files ({SUFFIX}) nor videos below {folder}: {error}"
            ) from error
        return "latents"
    if latents is not None:
        raise ValueError(
            f"{folder} holds both latent files ({latents}) and videos ({video}): give the folder "
            "of one kind"
        )
    return "videos"


def reading_for(
    config: JudgeConfig,
    *,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
) -> Reading:
    """How to read videos for a judge: what is given, else the one value it was trained on.

    Args:
        config: the judge's.
        fps: frames per second.
        height: in pixels.
        width: in pixels.
        num_frames: 4f + 1 for CogVideoX.

    Raises:
        ValueError: naming all values that are not given although the judge was trained on several,
            with their range.
    """
    given = {"fps": fps, "height": height, "width": width, "num-frames": num_frames}
    trained = dict(_trained_ranges(config))
    missing = []
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
        num_frames=int(chosen["num-frames"]),
    )


def encode_for(
    config: JudgeConfig,
    videos: str | Path,
    out: str | Path,
    *,
    vae: Any,
    reading: Reading,
    space_id: str | None = None,
    frames_fps: float | None = None,
    overwrite: bool = False,
    process_index: int = 0,
    num_processes: int = 1,
) -> None:
    """Encode this process's share of a folder of videos in the latent space of a judge.

    Args:
        config: the judge's.
        videos: folder with video files and folders of frames.
        out: folder for the latent files, not inside `videos`.
        vae: the VAE of the judge's latent space, on the device to use.
        reading: how the videos are read.
        space_id: name of the VAE's latent space; read from the VAE by default.
        frames_fps: frames per second of folders of frames.
        overwrite: replace latent files made otherwise.
        process_index: as for `encode_folder`.
        num_processes: as for `encode_folder`.

    Raises:
        LatentSpaceError: for a VAE of another latent space than the judge's.
        EncodeMismatchError: for latent files in `out` that were made otherwise.
        ValueError: for videos that cannot be read, since each must be scored; and for `out` inside
            `videos`.
    """
    if Path(out).resolve().is_relative_to(Path(videos).resolve()):
        raise ValueError(
            f"the latents would go to {out}, inside the folder of videos {videos}: that folder "
            "would then hold both. Give --latents another folder"
        )
    space = LatentSpace.from_vae(vae, id=space_id)
    if not space.same_latents(config.latent_space):
        raise LatentSpaceError(
            f"the judge scores latents of {config.latent_space.title()}, this VAE makes latents of "
            f"{space.title()}: pass the VAE that the judge was trained with"
        )
    report = encode_folder(
        videos,
        out,
        vae=vae,
        space=space,
        fps=reading.fps,
        height=reading.height,
        width=reading.width,
        num_frames=reading.num_frames,
        frames_fps=frames_fps,
        overwrite=overwrite,
        process_index=process_index,
        num_processes=num_processes,
    )
    if report.unreadable:
        path, reason = report.unreadable[0]
        raise ValueError(
            f"{len(report.unreadable)} videos cannot be read and so have no score, the first is "
            f"{path}: {reason}. Repair or remove them, and run the same command again"
        )


def check_complete(videos: str | Path, latents: str | Path) -> None:
    """Refuse latents that are not one file for each video, and no others.

    Raises:
        LatentFileError: with both numbers, and the first names that are on one side only.
    """
    videos = Path(videos)
    expected = {path.relative_to(videos).as_posix() for path in list_videos(videos)}
    found = [str(info.source) for info in LatentFolder(latents).infos]
    odd = sorted(expected.symmetric_difference(found))
    if odd or len(found) != len(expected):
        raise LatentFileError(
            f"{latents} holds {len(found)} latent files for {len(expected)} videos below {videos}; "
            f"{len(odd)} are on one side only, the first are {odd[:3]}: give --latents a folder "
            "that holds nothing else"
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
    yield "num-frames", (shortest, longest)
