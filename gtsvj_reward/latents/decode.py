"""Folders of latent files to folders of videos, to look at or to label."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.files import full_disk_named, write_text
from gtsvj_reward.latents.content import content_key
from gtsvj_reward.latents.sources import VIDEO_SUFFIXES
from gtsvj_reward.latents.store import SUFFIX, ClipInfo, LatentFolder, load_clip
from gtsvj_reward.latents.vae_family import TileChoice
from gtsvj_reward.latents.writing import write_video
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.progress import Progress
from gtsvj_reward.tables import write_table

RECORD = "decoded.json"
"""In the folder of videos: video -> content of the latents that it shows."""
PROMPTS = "prompts.csv"
"""In the folder of videos: the prompts that latent files record; columns `video`, `prompt`."""


@dataclass
class DecodeReport:
    """What became of the clips."""

    decoded: list[Path] = field(default_factory=list)
    """Videos that were written now."""
    already_done: list[Path] = field(default_factory=list)
    """Videos that were there, of the same latents."""


def decode_folder(
    latents: str | Path,
    out: str | Path,
    *,
    vae: Any,
    tile: TileChoice = "auto",
    progress: bool = True,
) -> DecodeReport:
    """Decode every latent file below a folder to an mp4 at the same relative path.

    `a/x.safetensors` and `a/x.mov.safetensors` become `a/x.mp4`. A run that was killed is resumed
    by calling this again; videos of latents that changed since are written anew. Prompts that the
    latent files record go to `prompts.csv`.

    Args:
        latents: folder of latent files.
        out: folder for the videos; made if need be.
        vae: the VAE of the latents, on the device to use.
        tile: as in `LatentSpace.decode`.
        progress: show a progress bar.

    Raises:
        LatentSpaceError: for a VAE of another space.
        ValueError: if two latent files would become one video.
        FolderInUseError: if another run writes to `out`.
    """
    clips, out = LatentFolder(latents), Path(out)
    clips.space.family(vae)
    targets = {video_path(out, info.path.relative_to(clips.path)): info for info in clips.infos}
    if len(targets) < len(clips.infos):
        raise ValueError(
            f"{len(clips.infos)} latent files of {latents} would become {len(targets)} videos: "
            "some names differ in their suffix alone; decode their folders one by one"
        )
    report = DecodeReport()
    with folder_lock(out), Progress(len(targets), "decode", shown=progress) as bar:
        known = json.loads((out / RECORD).read_text()) if (out / RECORD).is_file() else {}
        shown: dict[str, str] = {}
        try:
            for target, info in targets.items():
                name, key = target.relative_to(out).as_posix(), content_key(info)
                done = known.get(name) == key and target.is_file()
                if not done:
                    write_clip(target, info, vae, tile)
                (report.already_done if done else report.decoded).append(target)
                shown[name] = key
                (bar.skip if done else bar.update)(1)
        finally:
            write_text(out / RECORD, json.dumps({**known, **shown}, indent=0) + "\n")
        write_prompts(out, targets)
    return report


def video_path(out: Path, relative: Path) -> Path:
    """The video of a latent file."""
    name = relative.name.removesuffix(SUFFIX)
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        name = Path(name).stem
    return out / relative.parent / f"{name}.mp4"


def write_clip(target: Path, info: ClipInfo, vae: Any, tile: TileChoice) -> None:
    """Decode one clip; the video appears whole or not at all."""
    clip = load_clip(info.path)
    with torch.no_grad():
        latents = clip.latents[None].to(vae.device, torch.float32)
        frames = info.space.decode(latents, vae, tile=tile)[0]
    # (time, channel, height, width) in 0..1 -> (time, height, width, channel) in 0..255
    pixels = (255 * frames).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
    part = target.with_name(f".{target.stem}.part.mp4")
    with full_disk_named(target):
        write_video(part, pixels, info.fps)
        part.replace(target)


def write_prompts(out: Path, targets: dict[Path, ClipInfo]) -> None:
    """Write the prompts that are known, if any is."""
    rows = [
        (target.relative_to(out).as_posix(), prompt)
        for target, info in targets.items()
        if isinstance(prompt := info.settings.get("prompt"), str)
    ]
    if rows:
        write_table(out / PROMPTS, ("video", "prompt"), rows)
