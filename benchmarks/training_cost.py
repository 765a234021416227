"""Cost of the recipe `examples/cogvideox-2b/`: disk, operations, GPU hours, checkpoints.

    python -m benchmarks.training_cost

All of it is computed and none of it measured: operations are counted on the meta device for clips
of 49 frames of 480x720 (13 x 60 x 90 latents), and multiplied by the numbers in the recipe's YAML
files. Hours follow from a rate that you give (`--rates`); which rate a GPU keeps up is not known
here. Whole clips are assumed: truncation and shorter videos make it less.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_models import judge_of
from gtsvj_reward import VideoJudge
from gtsvj_reward.judge import Aspect
from gtsvj_reward.judge.settings import Stage
from gtsvj_reward.judge.stages import Part
from gtsvj_reward.latents.cogvideox_vae import CogVideoXVAE

RECIPE = Path(__file__).parents[1] / "examples" / "cogvideox-2b"
STAGES: tuple[Stage, ...] = ("discriminator", "aspects", "preference")
LATENTS = (13, 16, 60, 90)
ASPECTS = 21
TRAINED: dict[Stage, tuple[Part, ...]] = {
    "discriminator": ("adapter", "head"),
    "aspects": ("adapter", "head"),
    "preference": ("adapter", "preference"),
}
"""What each stage of the recipe trains."""

CLIPS = {
    "real": 20_000,
    "real-held-out": 200,
    "generated": 30_000,
    "generated-held-out": 200,
    "visionreward-train": 40_743,
    "visionreward-regression": 2 * 1_795,
    "monetbench": 2 * 1_000,
    "genai-bench": 2 * 2_980,
}
"""Set -> clips: paper section 5.1 for the first and third, the recipe's choice for the held-out
ones, the data sets' rows for the others, at two videos per comparison, which is the most there can
be. VideoGen-RewardBench has 26,500 comparisons; the number of its videos is not known here."""

BENCHMARKS = ("monetbench", "genai-bench")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Operations for one clip, in units of 10^12, and bytes of what a checkpoint adds."""

    encode: float
    """VAE, in the tiles that `gtsvj encode` uses."""
    score: float
    """Judge, forward."""
    train: Mapping[str, float]
    """Stage -> forward and backward, last third of the blocks recomputed."""
    checkpoint: Mapping[str, int]
    """Stage -> bytes of adapter, head and linear layer."""
    base: int
    """Bytes of the transformer in bfloat16."""


def count_encode() -> float:
    """Encoding of a clip as `gtsvj encode` does it, in units of 10^12.

    Its check of the pixels is left out: it needs values, which the meta device has not.
    """
    with torch.device("meta"):
        vae, frames = AutoencoderKLCogVideoX().eval(), torch.zeros(1, 3, 49, 480, 720)
    vae.enable_tiling(*CogVideoXVAE.tile, 1 / 6, 1 / 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(frames).latent_dist.mode()
    return float(counter.get_total_flops()) / 1e12


def count(encode: float) -> Counted:
    """Counts of a judge, with the operations of `count_encode`."""
    with torch.device("meta"):
        full = CogVideoXTransformer3DModel().eval()
    judges = {stage: judge_in_training(full, stage) for stage in STAGES}
    with FlopCounterMode(display=False) as forward, torch.no_grad(), torch.device("meta"):
        judges["preference"](torch.zeros(1, *LATENTS))
    return Counted(
        encode=encode,
        score=forward.get_total_flops() / 1e12,
        train={stage: step_operations(judge, stage) for stage, judge in judges.items()},
        checkpoint={stage: checkpoint_bytes(judge) for stage, judge in judges.items()},
        base=2 * sum(parameter.numel() for parameter in full.parameters()),
    )


def judge_in_training(transformer: Any, stage: Stage) -> VideoJudge:
    """A judge with the paper's settings that recomputes its blocks."""
    aspects = tuple(Aspect(name=str(index), low=1, high=5) for index in range(ASPECTS))
    named = () if stage == "discriminator" else aspects
    judge = judge_of(transformer, stage=stage, aspects=named)
    judge.backbone.gradient_checkpointing = True
    return judge


def step_operations(judge: VideoJudge, stage: Stage) -> float:
    """Forward and backward for one clip, in units of 10^12."""
    judge.unfreeze(TRAINED[stage])
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        judge(torch.zeros(1, *LATENTS)).scores.mean().backward()
    judge.requires_grad_(False)
    return float(counter.get_total_flops()) / 1e12


def checkpoint_bytes(judge: VideoJudge) -> int:
    """Bytes of the tensors that are saved: adapter and head, float32."""
    base = {id(tensor) for _, tensor in judge.backbone.base_tensors()}
    return 4 * sum(p.numel() for p in judge.parameters() if id(p) not in base)


@dataclass(frozen=True)
class Work:
    """One command of the recipe."""

    name: str
    clips: str
    """Text of the clips that pass through the model."""
    tera: float
    """Operations, in units of 10^12."""


def encoding(counted: Counted) -> list[Work]:
    """Encoding of every set."""
    return [Work(f"encode {name}", f"{n:,} clips", n * counted.encode) for name, n in CLIPS.items()]


def training(counted: Counted, processes: int) -> list[Work]:
    """The three stages as their YAML files have them, with their evaluations."""
    work = []
    for stage in STAGES:
        settings = yaml.safe_load((RECIPE / f"{stage}.yaml").read_text())
        steps, batch = settings["max_steps"], batch_size(settings, processes)
        clips = steps * batch * (1 if stage == "aspects" else 2)
        evaluated = evaluations(settings) * clips_per_evaluation(stage, settings)
        work += [
            Work(
                f"train {stage}",
                f"{steps:,} steps of {batch}, {clips:,} clips",
                clips * counted.train[stage],
            ),
            Work(f"evaluate {stage}", f"{evaluated:,} clips", evaluated * counted.score),
        ]
    return work


def batch_size(settings: Mapping[str, Any], processes: int) -> int:
    """Pairs or clips of one optimisation step."""
    batch: int = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    return processes * batch


def evaluations(settings: Mapping[str, Any]) -> int:
    """Passes over the held-out clips: every `eval_steps`, at the end, and for the scale."""
    regular: int = settings["max_steps"] // settings["eval_steps"]
    return regular + 2


def clips_per_evaluation(stage: Stage, settings: Mapping[str, Any]) -> int:
    """Clips that one evaluation scores; in stage 1 each real one in five perturbed versions too."""
    if stage == "discriminator":
        return 6 * CLIPS["real-held-out"] + CLIPS["generated-held-out"]
    data = CLIPS["visionreward-train" if stage == "aspects" else "visionreward-regression"]
    return round(float(settings["held_out_fraction"]) * data)


def scoring(counted: Counted) -> list[Work]:
    """Scoring the benchmarks with one judge, and what any other clips take."""
    sets = {**{name: CLIPS[name] for name in BENCHMARKS}, "1,000 other clips": 1_000}
    return [Work(f"score {name}", f"{n:,} clips", n * counted.score) for name, n in sets.items()]


def report(counted: Counted, *, processes: int, rates: Sequence[float]) -> str:
    """The whole account as text.

    Args:
        counted: operations for one clip.
        processes: GPUs that train together.
        rates: of one GPU, in TFLOP/s.
    """
    clip = 4 * torch.Size(LATENTS).numel()
    total = sum(CLIPS.values())
    lines = [
        f"one clip, 49 frames of 480x720: {clip:,} bytes of latents (13x16x60x90, float32)",
        *(f"  {name:<24}{n:>8,} clips{n * clip / 1e9:>9.1f} GB" for name, n in CLIPS.items()),
        f"  {'together':<24}{total:>8,} clips{total * clip / 1e9:>9.1f} GB",
        "",
        "operations for one clip, in TFLOP:",
        f"  {'VAE encode, in tiles':<40}{counted.encode:>8.1f}",
        f"  {'judge, forward':<40}{counted.score:>8.1f}",
        *(f"  {f'{s}, forward and backward':<40}{n:>8.1f}" for s, n in counted.train.items()),
        "",
        f"operations and GPU hours, {processes} GPUs training together:",
        "  " + f"{'':<32}{'':<34}{'EFLOP':>7}" + "".join(f"{f'h at {r:g}':>10}" for r in rates),
        *parts(encoding(counted), rates),
        *parts(training(counted, processes), rates),
        *parts(scoring(counted), rates, total=False),
        "  (h at R: hours of one GPU that sustains R TFLOP/s)",
        "",
        f"base transformer in bfloat16: {counted.base / 1e9:.2f} GB",
        "tensors of a checkpoint:",
        *(f"  {stage:<24}{size:>12,} bytes" for stage, size in counted.checkpoint.items()),
    ]
    return "\n".join(lines) + "\n"


def parts(work: Sequence[Work], rates: Sequence[float], *, total: bool = True) -> list[str]:
    """A line for each piece of work, and their sum."""
    rows = list(work)
    if total:
        rows.append(Work("  together", "", sum(item.tera for item in work)))
    return [
        f"  {item.name:<32}{item.clips:<34}{item.tera / 1e6:>7.2f}"
        + "".join(f"{item.tera / rate / 3600:>10.1f}" for rate in rates)
        for item in rows
    ]


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8, help="GPUs that train together")
    parser.add_argument("--rates", type=float, nargs="+", default=[300.0, 100.0], help="TFLOP/s")
    args = parser.parse_args()
    print(report(count(count_encode()), processes=args.processes, rates=args.rates), end="")


if __name__ == "__main__":
    main()
