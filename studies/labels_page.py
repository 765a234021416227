"""The page of the study of labels: curves, differences with intervals, outcome of the claim."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtsvj_reward.metrics.student import student_quantile

BUDGETS = [10, 20, 40, 60, 80, 100, 120, 150, 200, 240, 300, 400]
"""Labels at which a judge is fitted and scored."""
GENERATORS = ("unsteady", "plain")
"""Rules in the order of the page."""
PLANNED = 5
"""Planned seeds."""
SEEDS = 20
"""Runs of each generator and rule, planned ones included."""
SHARE = 0.6
"""Largest share of the labels of random choice that active choice may need, by the claim."""
DECIDED_AT = (100, 200, 400)
"""Labels of random choice at which the claim is decided."""
MARGIN = 1.0
"""Margin of equal accuracy, in percentage points."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean of runs, in percentage points, with half of its 95% interval."""

    mean: float
    half: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Estimate from at least two values, as shares."""
        count = len(values)
        mean = sum(values) / count
        variance = sum((value - mean) ** 2 for value in values) / (count - 1)
        half = student_quantile(0.025, count - 1) * math.sqrt(variance / count)
        return cls(100 * mean, 100 * half, count)

    def show(self, *, signed: bool = False) -> str:
        """Text for a table."""
        return f"{self.mean:{'+' if signed else ''}.1f} ± {self.half:.1f}"


def read_records(folder: Path) -> list[Record]:
    """All runs."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def at(record: Record, labels: int, measure: str) -> float | None:
    """Metrics of a run at a number of labels; None if it did not get that far."""
    return next((p[measure] for p in record["curve"] if p["labels"] == labels), None)


def difference(
    records: Sequence[Record], measure: str, active: int, random: int, generator: str | None = None
) -> Estimate | None:
    """Active choice minus random choice, run by run of one generator and seed; None without two."""
    runs = {(r["generator"], r["seed"], r["choice"]): r for r in records}
    values = []
    for name, seed, choice in runs:
        pair = (runs.get((name, seed, "active")), runs.get((name, seed, "random")))
        if choice != "active" or pair[1] is None or generator not in (None, name):
            continue
        first, second = (
            at(runs[name, seed, "active"], active, measure),
            at(pair[1], random, measure),
        )
        if first is not None and second is not None:
            values.append(first - second)
    return Estimate.of(values) if len(values) > 1 else None


def outcome(found: Sequence[Estimate | None]) -> str:
    """Outcome of the claim, by the rule on the page."""
    known = [each for each in found if each is not None]
    if any(each.mean + each.half < 0 for each in known):
        return "did not hold"
    if len(known) == len(DECIDED_AT) and all(each.mean - each.half > -MARGIN for each in known):
        return "held"
    return "inconclusive"


def unfinished(records: Sequence[Record]) -> list[str]:
    """Runs that are missing, or ended before the last of `BUDGETS`."""
    went = {(r["generator"], r["choice"], r["seed"]): r["curve"][-1]["labels"] for r in records}
    runs = [(g, c, s) for g in GENERATORS for c in ("random", "active") for s in range(SEEDS)]
    return [
        f"{generator}, {choice}, seed {seed} ({went.get((generator, choice, seed), 0)})"
        for generator, choice, seed in runs
        if went.get((generator, choice, seed), 0) < max(BUDGETS)
    ]


def curves(records: Sequence[Record], measure: str) -> str:
    """Mean of the runs at each number of labels, by generator and choice."""
    keys = sorted({(r["generator"], r["choice"]) for r in records}, reverse=True)
    header = ["labels", *(f"{name}, {choice}" for name, choice in keys)]
    rows = []
    for labels in BUDGETS:
        cells = []
        for key in keys:
            found = [
                at(r, labels, measure) for r in records if (r["generator"], r["choice"]) == key
            ]
            values = [value for value in found if value is not None]
            cells.append(Estimate.of(values).show() if len(values) > 1 else "not run")
        rows.append([str(labels), *cells])
    return table(header, rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(found: Estimate | None) -> str:
    """Text of a difference, or of its absence."""
    return "not run" if found is None else f"{found.show(signed=True)} ({found.runs})"


def page(records: Sequence[Record]) -> str:
    """The whole page; its words are in `labels_page.md`."""
    planned = [record for record in records if record["seed"] < PLANNED]
    after = [record for record in records if record["seed"] >= PLANNED]
    decided, first, later = (
        [difference(some, "accuracy", round(SHARE * n), n) for n in DECIDED_AT]
        for some in (records, planned, after)
    )
    claim = [
        [f"{round(SHARE * n)} against {n}", *map(cell, found)]
        + [cell(difference(records, "accuracy", round(SHARE * n), n, g)) for g in GENERATORS]
        for n, *found in zip(DECIDED_AT, decided, first, later, strict=True)
    ]
    equal = [
        [
            str(n),
            cell(difference(records, "accuracy", n, n)),
            cell(difference(records, "gain", n, n)),
        ]
        for n in BUDGETS
    ]
    seeds, missing = {r["seed"] for r in records}, unfinished(records)
    words = Path(__file__).with_suffix(".md").read_text()
    return words.format(
        outcome=outcome(decided),
        runs=len(records),
        seeds=len(seeds),
        missing="Runs that did not go to the end, with their labels: " + "; ".join(missing)
        if missing
        else f"All runs went to {max(BUDGETS)} labels",
        planned=outcome(first),
        after=outcome(later),
        claim=table(
            [
                *("labels, active against random", "all", f"the {PLANNED} seeds of the plan"),
                *("those run after", *(f"all, {name}" for name in GENERATORS)),
            ],
            claim,
        ),
        equal=table(["labels", "accuracy", "gain"], equal),
        accuracy=curves(records, "accuracy"),
        gain=curves(records, "gain"),
    )
