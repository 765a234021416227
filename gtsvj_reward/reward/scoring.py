"""Scores of all latent files below a folder, as a table and as pictures."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.latents.files import write_text
from gtsvj_reward.latents.store import ClipInfo, LatentFolder, load_clip
from gtsvj_reward.latents.video import read_video
from gtsvj_reward.plotting import plot_trajectory
from gtsvj_reward.reward.reward import GTSVJReward


@dataclass(frozen=True)
class ScoredClip:
    """A latent file and its scores."""

    info: ClipInfo
    """The file."""
    name: str
    """Its path below the folder that was scored."""
    reward: float | None
    """Normalised score; None if the judge has no statistics to normalise by."""
    raw: float
    """Score on the judge's own scale; higher is better."""
    trajectory: Float[Tensor, " step"]
    """Raw score of each step."""
    untrained_geometry: str | None
    """What of the clip's geometry the judge was not trained on."""


def score_folder(
    reward: GTSVJReward, folder: str | Path, *, progress: bool = True
) -> list[ScoredClip]:
    """Score every latent file below a folder, in the order of their paths.

    Raises:
        ValueError: for an empty folder, and for any clip that `GTSVJReward` refuses; nothing is
            left out.
    """
    clips = LatentFolder(folder)
    normalize = reward.config.reward_mean is not None
    scored = []
    for info in tqdm(clips.infos, "score", disable=not progress):
        clip = load_clip(info.path)
        with torch.no_grad():
            out = reward.details(
                clip.latents[None], space=clip.space, fps=clip.fps, normalize=normalize
            )
        scored.append(
            ScoredClip(
                info=info,
                name=info.path.relative_to(clips.path).as_posix(),
                reward=out.rewards.item() if normalize else None,
                raw=out.raw.item(),
                trajectory=out.trajectory[0].cpu(),
                untrained_geometry=out.untrained_geometry[0],
            )
        )
    return scored


def write_scores(scored: Sequence[ScoredClip], path: str | Path) -> None:
    """Write a CSV with one row per clip; the trajectory is a JSON list."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["latents", "source", "reward", "raw", "trajectory", "untrained_geometry"])
    for clip in scored:
        steps = json.dumps([round(value, 6) for value in clip.trajectory.tolist()])
        table.writerow(
            [
                clip.name,
                clip.info.source or "",
                "" if clip.reward is None else f"{clip.reward:.6f}",
                f"{clip.raw:.6f}",
                steps,
                clip.untrained_geometry or "",
            ]
        )
    write_text(Path(path), text.getvalue())


def plot_scores(
    scored: Sequence[ScoredClip], videos: str | Path, out: str | Path, *, temporal_patch: int
) -> list[Path]:
    """Draw each clip's energy against time above its film strip (the paper's Fig. 3).

    Args:
        scored: what `score_folder` returned.
        videos: the folder that was encoded, where the sources are.
        out: folder for the pictures, one PNG per clip.
        temporal_patch: latent frames per step of the judge.

    Raises:
        ValueError: for a latent file that names no source.
        UnreadableVideoError: if a source is not there or cannot be read.
    """
    pictures = []
    for clip in scored:
        if clip.info.source is None:
            raise ValueError(f"{clip.info.path} names no source video: there is nothing to draw")
        settings = clip.info.settings
        names = ("fps", "height", "width", "start", "frames_fps")
        frames = read_video(
            Path(videos) / clip.info.source,
            num_frames=clip.info.num_frames,
            **{name: settings[name] for name in names},
        ).frames
        pictures.append(
            plot_trajectory(
                frames,
                {"energy": -clip.trajectory},
                fps=clip.info.fps,
                temporal_compression=clip.info.space.temporal_compression,
                temporal_patch=temporal_patch,
                title=f"{clip.info.source}: mean energy {-clip.raw:.3f}",
                path=Path(out) / f"{clip.name}.png",
            )
        )
    return pictures
