"""The study's clips and labels: made once, resumed clip by clip."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.files import write_text
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.sampling.pipelines import ClipSize
from gtsvj_reward.sampling.renoising import renoised
from gtsvj_reward.toy.corpus import (
    SEEN,
    UNSEEN,
    ClipSpec,
    encode_specs,
    random_specs,
    save_latents,
    write_comparisons,
    write_ratings,
)
from gtsvj_reward.toy.degradations import FAULTS
from gtsvj_reward.toy.pipeline import load_pipeline, sample
from gtsvj_reward.toy.world import FRAMES, SIZE, captions, draw_scene

SHORT, LONG = 9, 25
"""Frames of the test clips of other lengths: 3 and 7 latent frames."""
MILD, STRONG = 0.35, 0.8
"""Severities of the same-content pairs."""
STRENGTHS, FEW_STEPS = (0.2, 0.4, 0.6, 0.8), (1, 2, 3)
"""Noise levels and denoising steps of the noised real clips."""
MADE_EACH = 2
"""Noised and denoised clips per real clip."""
SAMPLING_STEPS = (10, 15, 25, 40)
"""Numbers of denoising steps of generated clips, one for each clip."""


@dataclass(frozen=True)
class TestPair:
    """Two clips of which the first is better, or whose simulated utilities differ by `gap`."""

    group: str
    """Which test: `same/<fault>`, `graded/<fault>`, `cross/seen`, `cross/unseen`, `short`, `long`.
    """
    first: str
    second: str
    """Latent files below the test folder."""
    gap: float
    """Utility of the first minus that of the second; never 0."""


def build(out: Path, sizes: dict[str, int], *, pipeline: str) -> None:
    """Write the missing data of the study.

    Args:
        out: folder for it.
        sizes: how many clips of each kind; see the configuration files beside this one.
        pipeline: bundled name or folder of the generator.
    """
    vae = load_vae(pipeline)
    clean = {"real": (11, sizes["real"]), "real_held_out": (12, sizes["held_out"])}
    for name, (key, count) in clean.items():
        specs = [ClipSpec(f"{name}-{index:05d}", (key, index), {}) for index in range(count)]
        encode_specs(specs, vae, out / name, bfloat16=True)
    for name, key, count in (
        ("rated", 13, sizes["rated"]),
        ("rated_held_out", 14, sizes["held_out"]),
    ):
        specs = random_specs(name, key, count, SEEN)
        encode_specs(specs, vae, out / "labelled", bfloat16=True)
        write_ratings(specs, out / f"{name}.csv", key)
    for name, key, count in (
        ("compared", 15, sizes["compared"]),
        ("compared_held_out", 16, sizes["held_out"]),
    ):
        specs = random_specs(name, key, 2 * count, SEEN)
        encode_specs(specs, vae, out / "labelled", bfloat16=True)
        write_comparisons(pairs_of(specs), out / f"{name}.csv", key)
    build_tests(out / "test", sizes, vae)


def build_generated(out: Path, sizes: dict[str, int], *, pipeline: str) -> None:
    """Sample whatever is missing of the generated clips."""
    pipe = load_pipeline(pipeline)
    space, known = LatentSpace.from_vae(pipe.vae), captions()
    for name, key, count in (
        ("generated", 31, sizes["generated"]),
        ("generated_held_out", 32, sizes["held_out"]),
    ):
        for first in tqdm(range(0, count, 16), f"sample {name}", leave=False):
            numbers = range(first, min(first + 16, count))
            paths = [out / name / f"{name}-{number:05d}.safetensors" for number in numbers]
            if all(path.exists() for path in paths):
                continue
            steps = SAMPLING_STEPS[first // 16 % len(SAMPLING_STEPS)]
            draw = keyed_generator(key, first)
            texts = [known[int(torch.randint(len(known), (), generator=draw))] for _ in numbers]
            seeds = [1000 * key + number for number in numbers]
            latents = sample(pipe, texts, seeds, steps=steps)
            for path, clip, text in zip(paths, latents, texts, strict=True):
                settings = {"prompt": text, "sampling_steps": steps}
                save_latents(path, clip, space, FRAMES, settings)


def build_made(out: Path, *, pipeline: str) -> None:
    """Make missing clips: real ones, partly noised and denoised in few steps.

    Each real clip is made twice, at strengths and in steps that are drawn, under its caption.
    """
    pipe = load_pipeline(pipeline)
    space, size = LatentSpace.from_vae(pipe.vae), ClipSize(FRAMES, SIZE, SIZE)
    wanted: dict[tuple[float, int], list[tuple[Path, Path, int]]] = {}
    for number, source in enumerate(sorted((out / "real").iterdir())):
        for each in range(MADE_EACH):
            draw = keyed_generator(33, number, each)
            strength, steps = (
                options[int(torch.randint(len(options), (), generator=draw))]
                for options in (STRENGTHS, FEW_STEPS)
            )
            target = out / "made" / f"{source.stem}-{each}.safetensors"
            if not target.exists():
                rows = wanted.setdefault((float(strength), int(steps)), [])
                rows.append((source, target, 10 * number + each))
    for (strength, steps), rows in tqdm(wanted.items(), "noise and denoise real clips"):
        for first in range(0, len(rows), 16):
            some = rows[first : first + 16]
            clips = [load_clip(source) for source, _, _ in some]
            found = renoised(
                pipe,
                torch.stack([clip.latents for clip in clips]),
                [draw_scene(*clip.settings["scene"]).caption for clip in clips],
                strength=strength,
                steps=steps,
                generators=[keyed_generator(34, key) for _, _, key in some],
                size=size,
                guidance_scale=1.0,
            )
            for (source, target, _), latents in zip(some, found, strict=True):
                settings = {"source": source.stem, "strength": strength, "steps": steps}
                save_latents(target, latents, space, FRAMES, settings)


def pairs_of(specs: list[ClipSpec]) -> list[tuple[ClipSpec, ClipSpec]]:
    """Pairs of neighbours: first and second, third and fourth, and so on."""
    return list(zip(specs[::2], specs[1::2], strict=True))


def build_tests(out: Path, sizes: dict[str, int], vae: Any) -> None:
    """Clips of all tests, and `pairs.json`, which says which is better."""
    rows: list[TestPair] = []
    same = []
    for index in range(sizes["same"]):
        same.append(ClipSpec(f"same-{index:03d}-clean", (17, index), {}))
        for fault in FAULTS:
            mild = ClipSpec(f"same-{index:03d}-{fault}-mild", (17, index), {fault: MILD})
            strong = ClipSpec(f"same-{index:03d}-{fault}-strong", (17, index), {fault: STRONG})
            same += [mild, strong]
            rows.append(TestPair(f"same/{fault}", f"same-{index:03d}-clean", strong.name, 1.0))
            rows.append(TestPair(f"graded/{fault}", mild.name, strong.name, 1.0))
    encode_specs(same, vae, out, bfloat16=True)
    crossed = (
        ("cross/seen", 18, sizes["cross"], SEEN, FRAMES),
        ("cross/unseen", 19, sizes["cross"] // 2, UNSEEN, FRAMES),
        ("short", 20, sizes["lengths"], SEEN, SHORT),
        ("long", 21, sizes["lengths"], SEEN, LONG),
    )
    for group, key, count, kinds, frames in crossed:
        specs = random_specs(group.replace("/", "-"), key, 2 * count, kinds, frames)
        encode_specs(specs, vae, out, bfloat16=True)
        labels = out / f"{group.replace('/', '-')}.csv"
        gaps = write_comparisons(pairs_of(specs), labels, key)
        rows += [
            TestPair(group, first.name, second.name, gap)
            for (first, second), gap in zip(pairs_of(specs), gaps, strict=True)
            if gap
        ]
    write_text(out / "pairs.json", json.dumps([vars(row) for row in rows]) + "\n")


def test_pairs(out: Path) -> list[TestPair]:
    """The files of `build_tests`."""
    return [TestPair(**row) for row in json.loads((out / "test" / "pairs.json").read_text())]
