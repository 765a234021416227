"""Judges of the alignment study that are fitted to the policy's own clips, made once."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gtsvj_reward import LatentSpace, VideoJudge
from gtsvj_reward.demo.candidates import generate
from gtsvj_reward.demo.story import (
    ASPECT,
    constant,
    contrast,
    fresh_judge,
    real_clips,
    simulated_ratings,
)
from gtsvj_reward.judge import save_judge
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.toy.corpus import save_latents
from gtsvj_reward.toy.pipeline import BASES, UNSTEADY, load_pipeline
from gtsvj_reward.toy.world import FRAMES, captions
from gtsvj_reward.training import FeatureCache, Rated, refit

PROMPTS, EACH = 20, 5
"""Prompts whose clips are rated, or are negatives, and clips of each: 100 clips."""
REAL = 96
"""Real clips of a judge without labels."""
ORDER_KEY, CLIP_SEEDS = 71, 700_000


def rated(generator: str, seed: int) -> VideoJudge:
    """Moments and 100 simulated ratings of the generator's own clips; no energy."""
    pipe, lot = load_pipeline(generator), own_clips(generator, seed)
    fresh = unfitted(generator, LatentSpace.from_pipeline(pipe), lot.latents)
    ratings = [
        Rated(constant(clip), {ASPECT.name: rating}, lot.prompts[index // lot.each])
        for index, (clip, rating) in enumerate(
            zip(lot.latents, simulated_ratings(lot.steadiness, seed), strict=True)
        )
    ]
    return refit(fresh, FeatureCache(fresh, batch_size=20), ratings=ratings, aspects=[ASPECT])


def unlabelled(generator: str, seed: int) -> VideoJudge:
    """Moments of real clips against their perturbations and the generator's own clips."""
    pipe, lot = load_pipeline(generator), own_clips(generator, seed)
    space = LatentSpace.from_pipeline(pipe)
    fresh = unfitted(generator, space, lot.latents)
    pairs = contrast(real_clips(pipe, space, REAL, seed), lot.latents, seed)
    return refit(fresh, FeatureCache(fresh, batch_size=20), contrast=pairs)


FITTINGS: dict[str, Callable[[str, int], VideoJudge]] = {
    "rated": rated,
    "unlabelled": unlabelled,
}
"""From a generator and a seed to a judge."""


def own_clips(generator: str, seed: int) -> Any:
    """Clips as the policy makes them before training, of prompts that a seed draws."""
    known = captions()
    prompts = [known[index] for index in keyed_order(len(known), seed, ORDER_KEY)[:PROMPTS]]
    start = CLIP_SEEDS + 1000 * seed
    return generate(load_pipeline(generator), prompts, EACH, start, "the policy's own clips")


def unfitted(generator: str, space: LatentSpace, clips: Any) -> VideoJudge:
    """A judge that reads moments of the generator without faults; nothing is fitted yet."""
    base = BASES[generator]
    return fresh_judge(load_pipeline(base), space, clips, base_model=base)


def judge_settings(spec: dict[str, Any], seed: int, work: Path) -> dict[str, Any]:
    """Flags of a row's judge and generator; the judge is fitted if it is not there yet.

    Args:
        spec: of the configuration: `reward` names a judge, `fit` how one is fitted; `refit` says
            that labels and real clips are given to the run, too; `prompt_score` is the weight of
            the generator's prompt score beside the judge; `generator` is the policy before
            training, where it is not the unsteady CogVideoX.
        seed: of its clips and ratings.
        work: folder of judges.
    """
    generator, settings = spec.get("generator", UNSTEADY), dict(spec["settings"])
    if generator != UNSTEADY:
        settings["pretrained_model"] = generator
    if "reward" in spec:
        return {**settings, "reward": spec["reward"]}
    folder = work / f"{spec['fit']}-{generator}-{seed}"
    if not (folder / "config.json").exists():
        save_judge(FITTINGS[spec["fit"]](generator, seed), folder)
    settings["reward"] = str(folder)
    if "prompt_score" in spec:
        settings["reward"] = [f"{folder}=1", f"prompt-score={spec['prompt_score']}"]
    if spec.get("refit"):
        labels = work / f"labels-{generator}-{seed}"
        write_labels(generator, seed, labels)
        settings["refit_ratings"] = str(labels / "ratings.csv")
        settings["refit_latents"] = str(labels / "own")
        settings["refit_positives"] = str(labels / "real")
    return settings


def write_labels(generator: str, seed: int, folder: Path) -> None:
    """The clips and ratings of `rated` as files, and real clips, unless they are there."""
    if (folder / "ratings.csv").exists():
        return
    pipe, lot = load_pipeline(generator), own_clips(generator, seed)
    space = LatentSpace.from_pipeline(pipe)
    parts = {"own": lot.latents, "real": real_clips(pipe, space, REAL, seed)}
    for name, clips in parts.items():
        for number, clip in enumerate(clips):
            path = folder / name / f"{name}-{number:05d}.safetensors"
            save_latents(path, clip, space, FRAMES, {"generator": generator, "seed": seed})
    rows: list[tuple[Any, ...]] = [("video", "prompt", ASPECT.name)]
    for number, rating in enumerate(simulated_ratings(lot.steadiness, seed)):
        rows.append((f"own-{number:05d}", lot.prompts[number // lot.each], rating))
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
