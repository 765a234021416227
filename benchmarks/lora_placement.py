"""Cost of training by LoRA placement, and of scoring for judges that read less.

    python -m benchmarks.lora_placement            # both
    python -m benchmarks.lora_placement --rounds 0 # counted operations alone

Operations are counted on the meta device for the full CogVideoX-2B shape and one clip of 49 frames
of 480x720 (13 x 60 x 90 latents, 17,550 tokens). Times are taken on the toy world's transformer:
one training step of eight clips, placements alternating in one run, in CPU seconds of one thread,
since other work on the machine moves the wall clock. Operations do not include memory traffic.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import torch
from diffusers import CogVideoXTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.full_models import judge_of
from gtsvj_reward import VideoJudge
from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import load_transformer
from gtsvj_reward.backbones.lora import Placement

FULL_SIZE = (1, 13, 16, 60, 90)
TOY_SIZE = (8, 5, 16, 8, 8)
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
REDUCED: dict[str, dict[str, Any]] = {
    "all blocks, all latents": {},
    "depth 15": {"depth": 15},
    "depth 10": {"depth": 10},
    "latent_pooling 2": {"latent_pooling": 2},
    "temporal_stride 2": {"temporal_stride": 2},
    "latent_pooling 2, temporal_stride 2": {"latent_pooling": 2, "temporal_stride": 2},
}
"""Judges of the 2B that see less, as in the study's section on accuracy against cost."""


def trainable(transformer: Any, placement: Placement) -> VideoJudge:
    """A judge as in training: adapter and head trainable."""
    judge = judge_of(transformer, lora_placement=placement)
    judge.unfreeze()
    return judge


def tera(run: Callable[[], object]) -> float:
    """Floating point operations of one call, in units of 10^12."""
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        run()
    return counter.get_total_flops() / 1e12


def training_step(judge: VideoJudge, latents: torch.Tensor) -> None:
    """Forward and backward; the gradients are thrown away."""
    judge(latents).scores.square().mean().backward()
    judge.zero_grad()


def placements_counted(transformer: Any) -> dict[str, float]:
    """Placement -> operations of a training step of one clip."""
    latents = torch.zeros(FULL_SIZE, device="meta")
    return {
        place: tera(lambda place=place: training_step(
            trainable(transformer, place), latents
        ))
        for place in PLACEMENTS
    }  # fmt: skip


def placements_timed(rounds: int) -> dict[str, float]:
    """Placement -> median CPU seconds of a training step at toy size, alternating."""
    torch.set_num_threads(1)
    transformer = load_transformer(folder_of("gtsvj-toy-pipeline"))
    latents = torch.randn(TOY_SIZE, generator=torch.Generator().manual_seed(0))
    judges = {place: trainable(transformer, place) for place in PLACEMENTS}
    for judge in judges.values():
        training_step(judge, latents)
    times: dict[str, list[float]] = {place: [] for place in PLACEMENTS}
    for _ in range(rounds):
        for place, judge in judges.items():
            began = time.process_time()
            training_step(judge, latents)
            times[place].append(time.process_time() - began)
    return {place: statistics.median(values) for place, values in times.items()}


def reduced_counted(transformer: Any) -> dict[str, float]:
    """Judge -> operations of scoring one clip."""
    latents = torch.zeros(FULL_SIZE, device="meta")
    found = {}
    for name, changes in REDUCED.items():
        judge = judge_of(transformer, **changes)
        with torch.no_grad():
            found[name] = tera(lambda judge=judge: judge(latents))
    return found


def show(title: str, rows: dict[str, float], unit: str, against: str) -> None:
    """A table with the share of one of its rows."""
    print(title)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}} {value:9.3f} {unit}  {value / rows[against]:.3f} of {against!r}")


def main() -> None:
    """Count, time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="0: no times")
    rounds = parser.parse_args().rounds
    with torch.device("meta"):
        full = CogVideoXTransformer3DModel().eval()
    show("training step, one clip, CogVideoX-2B shape:", placements_counted(full), "TFLOP", "all")
    show("scoring one clip:", reduced_counted(full), "TFLOP", "all blocks, all latents")
    if rounds:
        title = f"training step at toy size, median of {rounds}, one thread:"
        show(title, placements_timed(rounds), "s of CPU", "all")


if __name__ == "__main__":
    main()
