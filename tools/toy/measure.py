"""Evaluates the toy world's generator: figures for its card, and a contact sheet.

    python -m tools.toy.measure --pipeline DIR --detector DIR --out docs/toy

Clips of captions drawn at random are sampled with several numbers of steps. The detector reads
their captions back, and its features give a Fréchet distance to real clips that went through the
codec; real clips against other real clips say what is the best that can be had.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gtsvj_reward.files import write_text
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.metrics.pairwise import proportion_interval
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import encode_frames
from gtsvj_reward.toy.detector import Detection, Detector, detect, load_detector
from gtsvj_reward.toy.pipeline import STEPS, decode, load_pipeline, sample
from gtsvj_reward.toy.world import captions, draw_scene, render

REAL_KEYS = (401, 402)
SAMPLE_KEY = 403


def prompts(count: int) -> list[str]:
    """Captions drawn at random, the same for every number of steps."""
    known, generator = captions(), keyed_generator(SAMPLE_KEY)
    return [known[int(torch.randint(len(known), (), generator=generator))] for _ in range(count)]


def real_clips(pipe: object, key: int, count: int) -> tuple[Tensor, list[str]]:
    """Clips that went through the codec, and their captions."""
    space = LatentSpace.from_vae(pipe.vae)  # type: ignore[attr-defined]
    scenes = [draw_scene(key, index) for index in range(count)]
    latents = [
        encode_frames(torch.stack([render(scene) for scene in scenes[i : i + 16]]), pipe.vae, space)  # type: ignore[attr-defined]
        for i in range(0, count, 16)
    ]
    return torch.stack(decode(pipe, torch.cat(latents))), [scene.caption for scene in scenes]  # type: ignore[arg-type]


def measure(
    detector: Detector, clips: Tensor, texts: list[str], reference: Tensor
) -> dict[str, object]:
    """Agreement with the captions, with 95% intervals, and distance to the reference features."""
    shares = agreement(detect(detector, clips), texts)
    with torch.no_grad():
        distance = frechet_distance(detector.features(clips), reference)
    intervals = {name: proportion_interval(share, len(texts)) for name, share in shares.items()}
    return {"clips": len(texts), "shares": shares, "intervals": intervals, "frechet": distance}


def agreement(found: list[Detection], wanted: list[str]) -> dict[str, float]:
    """Share of clips in which each attribute, and the whole caption, is as it was asked for.

    Args:
        found: what the clips show.
        wanted: captions, in the same order.
    """
    if len(found) != len(wanted):
        raise ValueError(f"{len(found)} clips for {len(wanted)} captions")
    counts = dict.fromkeys(("count", "colour", "shape", "motion", "caption"), 0)
    for detection, text in zip(found, wanted, strict=True):
        words, asked = detection.caption.split(), text.split()
        counts["count"] += words[0] == asked[0]
        counts["colour"] += words[1] == asked[1]
        counts["shape"] += words[2].removesuffix("s") == asked[2].removesuffix("s")
        counts["motion"] += words[3] == asked[3]
        counts["caption"] += detection.caption == text
    return {name: count / len(wanted) for name, count in counts.items()}


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of two sets of features (clip, feature), each taken as Gaussian.

    |μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁^½ C₂ C₁^½)^½), in float64. It is biased upwards for few clips:
    compare only sets of equal size.
    """
    a, b = first.double(), second.double()
    root = root_of(a.T.cov())
    crossed = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum()
    spread = a.T.cov().trace() + b.T.cov().trace() - 2 * crossed
    return float(distance + spread)


def root_of(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def contact_sheet(clips: Tensor, path: Path, columns: int = 9) -> None:
    """Clips as rows, frames from left to right, twice the size."""
    length = clips.shape[1]
    chosen = [round(i * (length - 1) / (columns - 1)) for i in range(columns)]
    rows = [torch.cat([clip[index] for index in chosen], dim=1) for clip in clips]
    image = Image.fromarray(torch.cat(rows, dim=0).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Read the command line, sample, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", default="gtsvj-toy-pipeline")
    parser.add_argument("--detector", default="gtsvj-toy-detector")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 5, 10, 25, 50])
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe, detector = load_pipeline(args.pipeline), load_detector(args.detector)
    reference, _ = real_clips(pipe, REAL_KEYS[0], args.clips)
    with torch.no_grad():
        reference_features = detector.features(reference)
    others = real_clips(pipe, REAL_KEYS[1], args.clips)
    result = {"real": measure(detector, *others, reference_features)}
    texts, options = prompts(args.clips), {}
    if args.guidance is not None:
        options["guidance"] = args.guidance
    for steps in args.steps:
        parts = [
            sample(
                pipe, texts[i : i + 16], range(i, min(i + 16, len(texts))), steps=steps, **options
            )
            for i in range(0, len(texts), 16)
        ]
        clips = torch.stack(decode(pipe, torch.cat(parts)))
        result[f"{steps} steps"] = measure(detector, clips, texts, reference_features)
        print(steps, json.dumps(result[f"{steps} steps"]), flush=True)
        if steps in (STEPS, min(args.steps)):
            contact_sheet(clips[:12], args.out / f"generated-{steps}-steps.png")
    contact_sheet(reference[:6], args.out / "real-through-the-codec.png")
    write_text(
        args.out / "generator.json", json.dumps({"prompts": texts[:12], **result}, indent=1) + "\n"
    )
    print(json.dumps(result["real"]))


if __name__ == "__main__":
    main()
