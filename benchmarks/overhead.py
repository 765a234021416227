"""What the judge costs beside the bare transformer, and what it saves beside decoding.

    python -m benchmarks.overhead

First the wall time of a judge's forward pass against that of the unmodified diffusers model at the
same depth and size, alternating in one run: a ratio, since machines are noisy. Then floating point
operations counted on the meta device, at the size of 49 frames of 480x720 (13 x 60 x 90 latents).
Operations say nothing about memory traffic or about what a GPU reaches of its peak.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting import operations
from gtsvj_reward import JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.losses import contrastive_loss

SPACE = LatentSpace(id="cogvideox-2b", channels=16, scaling_factor=1.15258426)


def judge_of(transformer: Any, **changes: Any) -> VideoJudge:
    """A judge with the paper's settings, frozen as a reward has it."""
    config = JudgeConfig(base_model="random", latent_space=SPACE, **changes)
    judge = VideoJudge.from_transformer(transformer, config).requires_grad_(False)
    return judge.to(next(transformer.parameters()).device)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def wall_time(rounds: int) -> None:
    """Judge against bare model, alternating, medians and their ratio."""
    torch.manual_seed(0)
    size = {"num_layers": 6, "sample_width": 24, "sample_height": 16, "sample_frames": 25}
    transformer = CogVideoXTransformer3DModel(**size).eval()
    latents, text = torch.randn(1, 7, 16, 16, 24), torch.zeros(1, 226, 4096)
    timestep = torch.zeros(1)

    def bare() -> object:
        return transformer(latents, text, timestep)

    rows = {
        "bare": bare,
        "judge": judge_of(transformer),
        "no LoRA": judge_of(transformer, lora_rank=0),
    }
    calls = {
        name: run if name == "bare" else (lambda run=run: run(latents))
        for name, run in rows.items()
    }
    with torch.no_grad():
        for run in calls.values():
            run()
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, run in calls.items():
                times[name].append(seconds(run))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"forward, 6 blocks of the 2B (1920 wide), 7x16x24 latents, median of {rounds}:")
    for name, value in medians.items():
        print(f"  {name:<8} {1000 * value:8.1f} ms   ratio {value / medians['bare']:.3f}")


def tera(run: Callable[[], object]) -> float:
    """Floating point operations of one call, in units of 10^12."""
    return operations(run) / 1e12


def pair_operations(transformer: Any) -> float:
    """Forward and backward of one training pair, LoRA on the last third, in units of 10^12."""
    judge = judge_of(transformer)
    judge.unfreeze()
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        first, second = (judge(torch.zeros(1, 13, 16, 60, 90)).scores.mean() for _ in range(2))
        contrastive_loss(first[None], second[None])[0].backward()
    return counter.get_total_flops() / 1e12


def count_all() -> None:
    """Judge and VAE decode at 13 x 60 x 90 latents, on the meta device."""
    with torch.device("meta"):
        latents = torch.zeros(1, 13, 16, 60, 90)
        vae = AutoencoderKLCogVideoX().eval()
        full = CogVideoXTransformer3DModel().eval()
    rows = {
        "judge, 30 blocks": tera(lambda: judge_of(full)(latents)),
        "judge, 15 blocks": tera(lambda: judge_of(full, depth=15)(latents)),
        "judge, 10 blocks": tera(lambda: judge_of(full, depth=10)(latents)),
        "VAE decode": tera(lambda: vae.decode(latents.transpose(1, 2)).sample),
    }
    rows["training pair"] = pair_operations(full)
    rows["decode, then judge"] = rows["VAE decode"] + rows["judge, 30 blocks"]
    print("forward, 49 frames of 480x720 (13x60x90 latents, 17,550 tokens), counted:")
    for name, value in rows.items():
        print(f"  {name:<20} {value:7.1f} TFLOP")


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    wall_time(args.rounds)
    count_all()


if __name__ == "__main__":
    main()
