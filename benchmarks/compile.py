"""Whether `torch.compile` makes one graph of each block of a judge, and the speed-up here.

    python -m benchmarks.compile
    python -m benchmarks.compile --rounds 5    # compiles with inductor, which needs a C++ compiler

A graph break in a block of the bundled toy judge is an error. With `--rounds` the judge whose
blocks are compiled is timed against a plain one, alternating, and their scores are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward import GTSVJReward, VideoJudge

TOY_SIZE = (4, 5, 16, 8, 8)


def compile_blocks(judge: VideoJudge, **options: Any) -> None:
    """Compile the blocks one by one, in place, each in one graph."""
    torch._dynamo.reset()
    for block in judge.backbone.blocks():
        block.compile(fullgraph=True, **options)


def median_seconds(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of CPU seconds, the calls alternating."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(plain: VideoJudge, compiled: VideoJudge, latents: Tensor, rounds: int) -> None:
    """Time and scores of a judge with compiled blocks beside a plain one."""
    with torch.no_grad():
        expected, found = plain(latents).scores, compiled(latents).scores
        medians = median_seconds(
            {"plain": lambda: plain(latents), "compiled": lambda: compiled(latents)}, rounds
        )
    error = (found - expected).abs().max() / expected.mean(dim=1).std()
    print(f"largest difference of a step: {error:.1e} of the standard deviation of the scores")
    print(f"compiled / plain: {medians['compiled'] / medians['plain']:.2f} in CPU time")


def main() -> None:
    """Compile; with a flag, time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0)
    args = parser.parse_args()
    plain, compiled = (GTSVJReward.from_pretrained("gtsvj-toy-lora").judge for _ in range(2))
    latents = torch.randn(TOY_SIZE, generator=torch.Generator().manual_seed(0))
    compile_blocks(compiled, **({} if args.rounds else {"backend": "aot_eager"}))
    with torch.no_grad():
        compiled(latents)
    print("gtsvj-toy-lora: every block compiles in one graph")
    if args.rounds:
        compare(plain, compiled, latents, args.rounds)


if __name__ == "__main__":
    main()
