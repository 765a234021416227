"""Folders of tiny latent clips."""

import torch

from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from tests.tiny import clips, tiny_space


def write_clips(folder, count, *, time=7, seed=0, scale=1.0, drift=0.0, fps=8.0):
    """Latent files; with `drift`, a smooth motion that perturbations break."""
    space = tiny_space()
    for index in range(count):
        latents = clips(1, time, seed=seed + index)[0] * scale
        if drift:
            ramp = torch.linspace(-drift, drift, time)[:, None, None, None]
            latents = (latents[:1].expand(time, -1, -1, -1) + ramp) / (1 + drift)
        save_clip(
            folder / f"{index:02d}.safetensors",
            LatentClip(
                latents=latents,
                space=space,
                fps=fps,
                num_frames=space.video_frames(time),
                source=f"{index}.mp4",
                source_sha256=f"{folder.name}-{index}",
            ),
        )
    return LatentFolder(folder)
