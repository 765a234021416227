"""Whether `torch.compile` takes a judge in one graph, and what that gains on this machine.

    python -m benchmarks.compile
    python -m benchmarks.compile --rounds 5    # compiles with inductor, which needs a C++ compiler

Graph breaks of the bundled toy judge are listed with the place that causes them. With `--rounds`
the compiled judge is timed against the plain one, alternating, and its scores are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gtsvj_reward import GTSVJReward

TOY_SIZE = (4, 5, 16, 8, 8)


def graph_breaks(judge: nn.Module, latents: Tensor) -> list[str]:
    """Where the graph of a judge's forward pass breaks, and why; empty for one graph."""
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch._dynamo.explain(judge)(latents)
    return [
        f"{reason.user_stack[-1].filename}:{reason.user_stack[-1].lineno}: "
        f"{reason.reason.splitlines()[0]}"
        for reason in found.break_reasons
    ]


def median_seconds(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of CPU seconds, the calls alternating."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def compare(judge: nn.Module, latents: Tensor, rounds: int) -> None:
    """Time and scores of the compiled judge beside the plain one."""
    compiled = torch.compile(judge)
    with torch.no_grad():
        plain, fast = judge(latents).scores, compiled(latents).scores
        medians = median_seconds(
            {"plain": lambda: judge(latents), "compiled": lambda: compiled(latents)}, rounds
        )
    error = (fast - plain).abs().max() / plain.mean(dim=1).std()
    print(f"largest difference of a step: {error:.1e} of the standard deviation of the scores")
    print(f"compiled / plain: {medians['compiled'] / medians['plain']:.2f} in CPU time")


def main() -> None:
    """List breaks; time if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0)
    args = parser.parse_args()
    judge = GTSVJReward.from_pretrained("gtsvj-toy").judge
    latents = torch.randn(TOY_SIZE, generator=torch.Generator().manual_seed(0))
    breaks = graph_breaks(judge, latents)
    print(f"gtsvj-toy: {len(breaks)} graph breaks", *breaks, sep="\n  ")
    if args.rounds:
        compare(judge, latents, args.rounds)


if __name__ == "__main__":
    main()
