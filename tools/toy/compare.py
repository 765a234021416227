"""Compares retrained models with the stated figures of the bundled ones.

    python -m tools.toy.compare --rebuilt runs/toy --out tools/toy/figures/rebuilt.json

`make toy` ends with it. Stated figures are those of `tools/toy/figures/generator.json` and of the
study's row `full` in `studies/results`, which a rebuild leaves alone. A difference is clear if its
95% interval has no zero in it: for shares of clips by Newcombe's combination of Wilson intervals,
for accuracies by t over the stated seeds, or by Welch's over those of both where the rebuild has
several. One in forty is clear to the worse side by chance.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student, ttest_ind

from gtsvj_reward.files import write_text
from studies.page import MEASURES, ZERO_SHOT, Results, read_results
from tools.check_tree import ROOT

STUDY_MEASURES = {**MEASURES, "energy alone": ZERO_SHOT}


@dataclass(frozen=True)
class Comparison:
    """One figure, before and after."""

    name: str
    stated: float
    rebuilt: float
    low: float
    """Lower end of the interval of rebuilt minus stated."""
    high: float
    """Upper end."""

    @property
    def outcome(self) -> str:
        """Worse or better if the interval is clear of zero."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "same"


def shares(name: str, stated: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Comparison:
    """Difference of two shares with Wilson intervals, by Newcombe's method."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = (
        (row["shares"][name], row["intervals"][name]) for row in (stated, rebuilt)
    )
    gap = b - a
    low = gap - math.hypot(b - b_low, a_high - a)
    return Comparison(name, a, b, low, gap + math.hypot(b_high - b, a - a_low))


def accuracies(name: str, stated: list[float], rebuilt: list[float]) -> Comparison:
    """Of two sets of seeds, by Welch's t; of one new seed, by the spread of the stated."""
    before, after = mean(stated), mean(rebuilt)
    if len(rebuilt) == 1:
        half = student.ppf(0.975, len(stated) - 1) * stdev(stated) * (1 + 1 / len(stated)) ** 0.5
        return Comparison(name, before, after, after - before - half, after - before + half)
    interval = ttest_ind(rebuilt, stated, equal_var=False).confidence_interval(0.95)
    return Comparison(name, before, after, float(interval.low), float(interval.high))


def of_generator(
    stated: Mapping[str, Any], rebuilt: Mapping[str, Any]
) -> Iterator[tuple[str, Comparison]]:
    """Every kind of clips and attribute that the detector reads."""
    for kind in stated:
        if kind != "prompts":
            for name in stated[kind]["shares"]:
                yield f"detector, {kind}", shares(name, stated[kind], rebuilt[kind])


def of_judge(stated: Results, rebuilt: Results) -> Iterator[tuple[str, Comparison]]:
    """Every measure of the study's rows."""
    for name, measure in STUDY_MEASURES.items():
        before, after = (
            [measure(record) for record in results["full"].values()]
            for results in (stated, rebuilt)
        )
        yield "judge", accuracies(name, before, after)


def table(found: list[tuple[str, Comparison]]) -> str:
    """Markdown, in percent."""
    lines = ["| figure | stated | rebuilt | difference, 95% interval | |", "|---|---|---|---|---|"]
    for part, item in found:
        numbers = [f"{100 * value:.0f}" for value in (item.stated, item.rebuilt)]
        interval = f"{100 * item.low:+.0f} to {100 * item.high:+.0f}"
        lines.append(
            f"| {part}: {item.name} | {' | '.join(numbers)} | {interval} | {item.outcome} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rebuilt", type=Path, required=True, help="where `make toy` worked")
    parser.add_argument("--out", type=Path, required=True, help="file for the comparison")
    args = parser.parse_args()
    generators = [
        json.loads(path.read_text())
        for path in (
            ROOT / "tools/toy/figures/generator.json",
            args.rebuilt / "figures/generator.json",
        )
    ]
    studies = [read_results(path) for path in (ROOT / "studies/results", args.rebuilt / "results")]
    found = [*of_generator(*generators), *of_judge(*studies)]
    rows = [{"part": part, **asdict(item), "outcome": item.outcome} for part, item in found]
    distances = {
        kind: [generator[kind]["frechet"] for generator in generators]
        for kind in generators[0]
        if kind != "prompts"
    }
    result = {"figures": rows, "frechet": distances}
    write_text(args.out, json.dumps(result, indent=1) + "\n")
    print(table(found))
    for kind, (before, after) in distances.items():
        print(f"Frechet distance, {kind}: stated {before:.1f}, rebuilt {after:.1f}")
    counts = {
        word: sum(i.outcome == word for _, i in found) for word in ("same", "worse", "better")
    }
    print(f"{len(found)} figures: {counts}")


if __name__ == "__main__":
    main()
