"""Folders of latent clips of the world, with simulated ratings and comparisons.

The same files that a person would have of real videos: latent clips as `gtsvj encode` writes them,
and plain CSV files of labels. A clip's severities are in its `settings`, which no trainer reads.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.files import write_text
from gtsvj_reward.latents import LatentSpace, vae_lock
from gtsvj_reward.latents.store import LatentClip, save_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.degradations import degraded
from gtsvj_reward.toy.raters import ASPECTS, compare, rate
from gtsvj_reward.toy.world import FPS, FRAMES, Frames, draw_scene

SEEN = ("flicker", "jitter", "ghosting", "blur", "noise", "popping")
"""Faults that labelled clips have."""
UNSEEN = ("colour_drift", "stutter", "morphing")
"""Faults that no training set has; each belongs to an aspect that has another, seen one."""


@dataclass(frozen=True)
class ClipSpec:
    """One clip: which scene, and what is wrong with it."""

    name: str
    """File name without suffix; may have folders."""
    scene: tuple[int, ...]
    """Key of `draw_scene`."""
    severities: dict[str, float]
    frames: int = FRAMES

    def draw(self) -> Frames:
        """The pixels."""
        digest = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:6], "big")
        generator = keyed_generator(*self.scene, digest)
        return degraded(draw_scene(*self.scene, frames=self.frames), self.severities, generator)


def draw_severities(generator: torch.Generator, kinds: Sequence[str]) -> dict[str, float]:
    """Faults of a clip as raters meet them: none to three, each of severity 0.15..1."""
    number = int(torch.multinomial(torch.tensor([0.15, 0.4, 0.3, 0.15]), 1, generator=generator))
    chosen = torch.randperm(len(kinds), generator=generator)[:number].tolist()
    return {
        kinds[index]: round(0.15 + 0.85 * torch.rand((), generator=generator).item(), 3)
        for index in chosen
    }


def random_specs(
    prefix: str, key: int, count: int, kinds: Sequence[str], frames: int = FRAMES
) -> list[ClipSpec]:
    """Clips of different scenes, with random faults of some kinds."""
    return [
        ClipSpec(
            f"{prefix}-{index:05d}",
            (key, index),
            draw_severities(keyed_generator(key, index, 1), kinds),
            frames,
        )
        for index in range(count)
    ]


def encode_frames(
    frames: UInt8[Tensor, "clip time height width 3"],
    vae: Any,
    space: LatentSpace,
    *,
    bfloat16: bool = False,
) -> Float[Tensor, "clip step channel row column"]:
    """Scaled latents of a batch; `LatentSpace.encode` to rounding, faster for small clips.

    That takes one clip at a time to bound the memory, which costs a CPU four times as long here.

    Args:
        frames: the clips.
        vae: of the toy world.
        space: its latent space.
        bfloat16: compute in bfloat16, which moves latents by 0.4% of their deviation and is faster
            still.
    """
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with torch.no_grad(), mixed, vae_lock(vae):
        latents = vae.encode(video).latent_dist.mode().transpose(1, 2).float()
    return space.scale(latents)


def save_latents(
    path: Path, latents: Tensor, space: LatentSpace, frames: int, settings: dict[str, Any]
) -> None:
    """Write one clip (time, channel, height, width); its settings replace a source."""
    record = json.dumps([path.stem, settings], sort_keys=True)
    save_clip(
        path,
        LatentClip(
            latents=latents.contiguous(),
            space=space,
            fps=FPS,
            num_frames=frames,
            source=path.stem,
            source_sha256=hashlib.sha256(record.encode()).hexdigest(),
            settings=settings,
        ),
    )


def encode_specs(
    specs: Sequence[ClipSpec], vae: Any, out: Path, *, batch: int = 16, bfloat16: bool = False
) -> None:
    """Draw, encode and write what is not there yet; all of the specs have one length."""
    space = LatentSpace.from_vae(vae)
    missing = [spec for spec in specs if not (out / f"{spec.name}.safetensors").exists()]
    for some in tqdm(list(_batches(missing, batch)), f"encode {out.name}", leave=False):
        frames = torch.stack([spec.draw() for spec in some])
        latents = encode_frames(frames, vae, space, bfloat16=bfloat16)
        for spec, clip in zip(some, latents, strict=True):
            settings = {"scene": list(spec.scene), "severities": spec.severities}
            save_latents(out / f"{spec.name}.safetensors", clip, space, spec.frames, settings)


def _batches(specs: Sequence[ClipSpec], size: int) -> Iterator[Sequence[ClipSpec]]:
    for first in range(0, len(specs), size):
        yield specs[first : first + size]


def write_ratings(specs: Sequence[ClipSpec], path: Path, seed: int) -> None:
    """Simulated Likert ratings of each clip, as a plain CSV file."""
    rows = [",".join(("video", *ASPECTS))]
    for index, spec in enumerate(specs):
        ratings = rate(spec.severities, keyed_generator(seed, 2, index))
        rows.append(",".join((spec.name, *(str(ratings[name]) for name in ASPECTS))))
    write_text(path, "\n".join(rows) + "\n")


def write_comparisons(
    pairs: Sequence[tuple[ClipSpec, ClipSpec]], path: Path, seed: int
) -> list[float]:
    """Simulated comparisons as a plain CSV file; returns the utility gaps, which it hides."""
    rows, gaps = ["video_a,video_b,label"], []
    for index, (first, second) in enumerate(pairs):
        compared = compare(first.severities, second.severities, keyed_generator(seed, 3, index))
        rows.append(f"{first.name},{second.name},{compared.label}")
        gaps.append(compared.gap)
    write_text(path, "\n".join(rows) + "\n")
    return gaps
