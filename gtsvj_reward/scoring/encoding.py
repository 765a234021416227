"""Folders of videos made into latents that a judge can score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.encode import EncodeReport, encode_folder
from gtsvj_reward.latents.sources import list_videos
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.store import SUFFIX, LatentFileError, LatentFolder
from gtsvj_reward.reward.encoding import Reading


def folder_kind(folder: str | Path) -> Literal["latents", "videos"]:
    """Whether a folder holds latent files or videos.

    Raises:
        ValueError: if it is not a folder, or holds both or neither.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"expected a folder of latent files or videos, got {folder}: not a folder")
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
) -> EncodeReport:
    """Encode this process's share of a folder of videos in the latent space of a judge.

    Args:
        config: the judge's.
        videos: folder with video files and folders of frames.
        out: folder for the latent files, not inside `videos`.
        vae: the VAE of the judge's latent space, on the device to use.
        reading: how the videos are read.
        space_id: name of the VAE's latent space; read from the VAE by default.
        frames_fps: frames per second of folders of frames.
        overwrite: replace latent files made with other settings.
        process_index: as for `encode_folder`.
        num_processes: as for `encode_folder`.

    Returns:
        Results for the videos; see `refuse_left_out`.

    Raises:
        LatentSpaceError: for a VAE of another latent space than the judge's.
        EncodeMismatchError: for latent files in `out` that were made otherwise.
        ValueError: for `out` inside `videos`.
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
    return encode_folder(
        videos,
        out,
        vae=vae,
        space=space,
        **reading.arguments(),
        frames_fps=frames_fps,
        overwrite=overwrite,
        process_index=process_index,
        num_processes=num_processes,
    )


def refuse_left_out(reports: Sequence[EncodeReport]) -> None:
    """Refuse videos that cannot be read or are too short, since each must be scored.

    Raises:
        ValueError: with their number and the first.
    """
    left_out = [pair for report in reports for pair in (*report.unreadable, *report.too_short)]
    if left_out:
        path, reason = left_out[0]
        raise ValueError(
            f"{len(left_out)} videos cannot be read, or not far enough, and so have no score, the "
            f"first is {path}: {reason}. Fix or remove them, and run the same command again"
        )


def check_complete(videos: str | Path, latents: str | Path) -> None:
    """Refuse latents that are not one file for each video, and no others."""
    videos = Path(videos)
    expected = {path.relative_to(videos).as_posix() for path in list_videos(videos)}
    found = [str(info.source) for info in LatentFolder(latents).infos]
    odd = sorted(expected.symmetric_difference(found))
    if odd or len(found) != len(expected):
        raise LatentFileError(
            f"{latents} holds {len(found)} latent files for {len(expected)} videos below {videos}; "
            f"{len(odd)} have no counterpart, the first are {odd[:3]}: give --latents a folder "
            "that holds nothing else"
        )
