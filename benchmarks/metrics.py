"""Seconds that each pairwise metric takes on 10^4 to 10^6 pairs, on this machine.

    python -m benchmarks.metrics

Differences are drawn from a normal distribution, as they are and rounded to 0.1 (few distinct
thresholds, many pairs at each); a third of the labels are ties. Then accuracy with ties against a
search that tries every threshold on every pair, which must agree.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from gtsvj_reward.metrics import (
    accuracy_against_threshold,
    accuracy_at_threshold,
    accuracy_with_ties,
    accuracy_without_ties,
    bootstrap_interval,
    held_out_accuracy_with_ties,
    pairwise_accuracy,
    pearson,
    spearman,
    videoreward_accuracy_with_ties,
    videoreward_accuracy_without_ties,
)

BRUTE_FORCE_PAIRS = 2000
RESAMPLES = 20


def made_up_pairs(count: int, rounded: bool) -> tuple[Tensor, Tensor]:
    """Differences that know a little of their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 2, (count,), generator=generator)
    differences = torch.randn(count, generator=generator, dtype=torch.float64) + labels
    return (differences.round(decimals=1) if rounded else differences), labels


def calls(differences: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    """Name -> one evaluation of that metric on the pairs."""
    first = torch.randn(len(labels), generator=torch.Generator().manual_seed(1)).double()
    second, half = first - differences, torch.arange(len(labels)) % 2 == 0

    def resampled(indices: Tensor) -> float:
        return accuracy_with_ties(differences[indices], labels[indices]).accuracy

    return {
        "pairwise_accuracy": lambda: pairwise_accuracy(first, second),
        "accuracy_with_ties": lambda: accuracy_with_ties(differences, labels),
        "accuracy_against_threshold": lambda: accuracy_against_threshold(differences, labels),
        "accuracy_at_threshold": lambda: accuracy_at_threshold(differences, labels, 0.5),
        "accuracy_without_ties": lambda: accuracy_without_ties(differences, labels),
        "held_out_accuracy_with_ties": lambda: held_out_accuracy_with_ties(
            differences, labels, half
        ),
        "videoreward_accuracy_with_ties": lambda: videoreward_accuracy_with_ties(
            differences, labels
        ),
        "videoreward_accuracy_without_ties": lambda: videoreward_accuracy_without_ties(
            differences, labels
        ),
        "spearman": lambda: spearman(first, second),
        "pearson": lambda: pearson(first, second),
        f"bootstrap_interval of accuracy_with_ties, {RESAMPLES} resamples": (
            lambda: bootstrap_interval(resampled, len(labels), resamples=RESAMPLES)
        ),
    }


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def searched(differences: list[float], labels: list[int]) -> float:
    """Accuracy at the best threshold, each tried on each pair."""
    best = 0
    for threshold in {0.0, *(abs(difference) for difference in differences)}:
        answers = ((d > threshold) - (d < -threshold) for d in differences)
        best = max(best, sum(a == h for a, h in zip(answers, labels, strict=True)))
    return best / len(labels)


def table(sizes: list[int], rounds: int) -> None:
    """A Markdown table of medians."""
    kinds = [(size, rounded) for size in sizes for rounded in (False, True)]
    heads = [f"{size:,}{', rounded' if rounded else ''}" for size, rounded in kinds]
    columns = [calls(*made_up_pairs(*kind)) for kind in kinds]
    print(f"seconds, median of {rounds}, {torch.get_num_threads()} thread(s)\n")
    print("| metric | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    for name in columns[0]:
        cells = [f"{seconds(column[name], rounds):.4f}" for column in columns]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def against_brute_force(rounds: int) -> None:
    """How many times faster than the search, which must find the same accuracy."""
    for rounded in (False, True):
        differences, labels = made_up_pairs(BRUTE_FORCE_PAIRS, rounded)
        lists = differences.tolist(), labels.tolist()
        found = accuracy_with_ties(differences, labels)
        if found.accuracy != searched(*lists):
            raise SystemExit(f"{found} is not what the search over all thresholds finds")
        fast = seconds(lambda pairs=(differences, labels): accuracy_with_ties(*pairs), 20 * rounds)
        slow = seconds(lambda lists=lists: searched(*lists), 1)
        kind = "rounded" if rounded else "continuous"
        print(
            f"{BRUTE_FORCE_PAIRS:,} pairs, {kind}: {1000 * fast:.2f} ms; search over all "
            f"thresholds {slow:.2f} s, {slow / fast:,.0f} times as long, same accuracy"
        )


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table(args.sizes, args.rounds)
    print()
    against_brute_force(args.rounds)


if __name__ == "__main__":
    main()
