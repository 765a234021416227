"""Rated and compared clips on disk, and runs of stages 2 and 3 on them."""

import csv

import torch

from gtsvj_reward.latents.store import LatentClip, save_clip
from gtsvj_reward.training import (
    AspectConfig,
    JudgeArguments,
    PreferenceConfig,
    train_aspects as run_aspects,
    train_preference as run_preference,
)
from tests.tiny import tiny_space

COMMON = {
    "max_steps": 4, "per_device_train_batch_size": 4, "truncation_min_seconds": 0.5,
    "logging_steps": 1, "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
    "held_out_fraction": 0.25,
}  # fmt: skip


def write_rated(folder, count, *, seed=0):
    """Clips whose brightness in channels 0 and 1 is what `clear` and `focus` rate, 0..4 each."""
    generator = torch.Generator().manual_seed(seed)
    space, rows = tiny_space(), []
    for index in range(count):
        levels = torch.randint(0, 5, (2,), generator=generator)
        latents = 0.5 * torch.randn(5, 4, 8, 12, generator=generator)
        latents[:, :2] += (levels.float() - 2)[None, :, None, None]
        save_clip(
            folder / f"{index:03d}.safetensors",
            LatentClip(latents=latents, space=space, fps=8.0, num_frames=17,
                       source=f"{index:03d}.mp4", source_sha256=f"{folder.name}-{index}"),
        )  # fmt: skip
        rows.append((f"{index:03d}.mp4", *levels.tolist()))
    return rows


def write_csv(path, header, rows):
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    return str(path)


def aspect_args(world, **changes):
    fields = {
        "output_dir": str(world / "aspects"), "ratings": str(world / "ratings.csv"),
        "latents": str(world / "rated"), "from_judge": str(world / "discriminator"),
        "aspects": ["clear=0:4", "focus=0:4"],
    }  # fmt: skip
    return AspectConfig(**{**COMMON, **fields, **changes})


def preference_args(world, **changes):
    fields = {
        "output_dir": str(world / "preference"), "comparisons": str(world / "pairs.csv"),
        "latents": str(world / "compared"), "from_judge": str(world / "aspects"),
    }  # fmt: skip
    return PreferenceConfig(**{**COMMON, **fields, **changes})


def train_aspects(world, **changes):
    return run_aspects(JudgeArguments(head_width=16), aspect_args(world, **changes))


def train_preference(world, **changes):
    return run_preference(JudgeArguments(), preference_args(world, **changes))
