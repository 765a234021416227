"""Folders of tiny latent clips, and a base model on disk."""

import pytest
import torch

from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from tests.conftest import clips, tiny_judge, tiny_space, tiny_transformer
from tests.training.stages import write_csv, write_rated


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


@pytest.fixture
def base(tmp_path):
    """The folder of a tiny transformer."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def world(tmp_path, base):
    """A discriminator, rated clips, compared clips of other videos, and their label files."""
    judge = tiny_judge(base_model=str(base), head_width=16, training={"steps": 7})
    save_judge(judge, tmp_path / "discriminator")
    rated = write_rated(tmp_path / "rated", 16)
    write_csv(tmp_path / "ratings.csv", ["video", "clear", "focus"], rated)
    compared = write_rated(tmp_path / "compared", 24, seed=1)
    pairs = []
    for (a, clear_a, _), (b, clear_b, _) in zip(compared[::2], compared[1::2], strict=True):
        pairs.append((a, b, (clear_a > clear_b) - (clear_a < clear_b)))
    write_csv(tmp_path / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    return tmp_path
