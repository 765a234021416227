"""The frames of scored clips, as the reports show them."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from gtsvj_reward.latents.content import MADE_FROM
from gtsvj_reward.latents.decode import video_path
from gtsvj_reward.latents.sources import source_sha256
from gtsvj_reward.latents.store import SUFFIX, ClipInfo
from gtsvj_reward.latents.video import READING, read_video


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the pictures of scored clips come from, and how their steps lie in time."""

    latents: Path
    """The folder of latent files."""
    videos: Path
    """The folder that was encoded."""
    temporal_patch: int
    """Latent frames per step of the judge."""
    temporal_stride: int = 1
    """The judge reads every K-th latent frame."""


def has_video(info: ClipInfo, videos: Path) -> bool:
    """Whether a latent file was encoded from a video, or `gtsvj decode` made one of it."""
    if MADE_FROM in info.settings:
        return decoded_path(info, videos).is_file()
    return info.source is not None and all(name in info.settings for name in READING)


def decoded_path(info: ClipInfo, videos: Path) -> Path:
    """Where `gtsvj decode` puts the video of a clip that a generator made."""
    return video_path(videos, Path(f"{info.source}{SUFFIX}"))


def source_frames(
    info: ClipInfo, videos: str | Path, name: str | None = None
) -> UInt8[Tensor, "time height width 3"]:
    """The frames that a latent file was encoded from, or that `gtsvj decode` wrote.

    Args:
        info: the latent file.
        videos: for a clip that a generator made, the folder of decoded ones; else the folder that
            was encoded, or one above it that lies like that of the latents.
        name: of the video below `videos`, with the folders above its source.

    Raises:
        ValueError: for a latent file without its source or reading settings.
        UnreadableVideoError: if the video is not there or cannot be read.
    """
    if info.source is None:
        raise ValueError(f"{info.path} names no source video: there is nothing to draw")
    if MADE_FROM in info.settings:
        side = info.space.spatial_compression
        return read_video(
            decoded_path(info, Path(videos)),
            fps=info.fps,
            height=side * info.shape[2],
            width=side * info.shape[3],
            num_frames=info.num_frames,
        ).frames
    missing = [name for name in READING if name not in info.settings]
    if missing:
        raise ValueError(
            f"{info.path} does not record how its video was read, {', '.join(missing)} is missing: "
            "pictures need latent files of `gtsvj encode` or `gtsvj negatives`"
        )
    reading = {name: info.settings[name] for name in READING}
    path = _source_path(info, Path(videos), name or info.source)
    return read_video(path, num_frames=info.num_frames, **reading).frames


def _source_path(info: ClipInfo, videos: Path, name: str) -> Path:
    """Where the video is: below `videos` as the latent file is below its own folder, or directly.

    Of two that are there it is the one with the content that was encoded.
    """
    places = [videos / name, videos / str(info.source)]
    there = [path for path in dict.fromkeys(places) if path.exists()]
    if len(there) > 1 and info.source_sha256 is not None:
        there.sort(key=lambda path: source_sha256(path) != info.source_sha256)
    return (there or places)[0]
