"""Overhead of the judge over the bare transformer.

    python -m benchmarks.overhead

The wall time of a judge's forward pass against that of the unmodified diffusers model at the same
depth and size, alternating in one run: a ratio, since machines are noisy. `cost.py` counts what it
saves beside decoding.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import CogVideoXTransformer3DModel

from benchmarks.full_models import judge_of


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


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    wall_time(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
