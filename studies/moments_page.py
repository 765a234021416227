"""The page of the study of moments: its claims, how each is decided, and what came out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from gtsvj_reward.toy.degradations import FAULTS
from studies.data import TestPair
from studies.moments_rows import CLAIMS, CONTENT, OWN, ROWS, SEMANTIC, TEACHER, TESTS

Records = dict[str, dict[int, dict[str, Any]]]
"""Row -> seed -> its result."""

MEASURES = {
    "coverage_50": "Share of held-out ratings inside the 50% interval (claim: 45 to 55)",
    "coverage_80": "... inside the 80% interval (claim: 75 to 85)",
    "coverage_95": "... inside the 95% interval (claim: 90 to 98)",
    "optimised_larger": "Clips of which u is larger after 30 gradient steps on their own score "
    "(claim: above 50)",
    "noise_larger": "... larger on random noise than on a clean clip (claim: above 50)",
    "scaled_larger": "... larger on a clean clip times 1.5 than on itself (claim: above 50)",
    "foreign_larger": "... larger on a clip of `gtsvj-toy-unsteady` in five steps than on a clean "
    "clip beside it (claim: above 50)",
    "optimised_ratio": "Mean ratio of u, optimised to clean",
    "noise_ratio": "... noise to clean",
    "scaled_ratio": "... times 1.5 to clean",
    "foreign_ratio": "... of the other generator to clean",
}
BANDS = {"coverage_50": (45, 55), "coverage_80": (75, 85), "coverage_95": (90, 98)} | dict.fromkeys(
    ("optimised_larger", "noise_larger", "scaled_larger", "foreign_larger"), (50, math.inf)
)
"""Measure -> range in percent that must contain the interval for the claim to hold."""


@dataclass(frozen=True)
class Estimate:
    """A mean in percent and half of its 95% interval."""

    value: float
    half: float
    """NaN with one seed."""

    def show(self, *, signed: bool = False) -> str:
        """Text for the page."""
        value = f"{self.value:+.1f}" if signed else f"{self.value:.1f}"
        return value if math.isnan(self.half) else f"{value} ± {self.half:.1f}"

    def verdict(self, margin: float) -> str:
        """Outcome of the claim that the value is above the margin."""
        if math.isnan(self.half):
            return "inconclusive (one seed)"
        if self.value - self.half > margin:
            return "**held**"
        if self.value + self.half < margin:
            return "**the opposite holds**"
        if self.value + self.half < margin + 2:
            return "**did not hold**"
        return "inconclusive"


def estimate(values: Float[Tensor, "seed unit"]) -> Estimate:
    """Mean over seeds and test units, with an interval for other seeds and other units.

    With a = (variance of the seeds' means) / seeds and b = (variance of the units' means) / units,
    the variance is a + b, with the degrees of freedom of Satterthwaite. The interaction of seed and
    unit is counted in both, so the interval is conservative.
    """
    values = 100 * values.double()
    seeds, units = values.shape
    if seeds < 2:
        return Estimate(values.mean().item(), float("nan"))
    parts = [(values.mean(dim=1).var() / seeds).item(), seeds - 1]
    across = (values.mean(dim=0).var() / units).item() if units > 1 else 0.0
    total = parts[0] + across
    if total == 0:
        return Estimate(values.mean().item(), 0.0)
    spread = parts[0] ** 2 / parts[1] + (across**2 / (units - 1) if units > 1 else 0.0)
    half = float(student.ppf(0.975, total**2 / spread)) * math.sqrt(total)
    return Estimate(values.mean().item(), half)


def marks(pairs: Sequence[TestPair], scores: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Test -> a digit per pair, and how many neighbouring pairs are of one scene."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        first, second = pair.group.split("/")[0], pair.group.split("/")[-1]
        gap = (scores[pair.first] - scores[pair.second]) * (1 if pair.gap > 0 else -1)
        test = "unseen" if second == "unseen" else first
        found.setdefault(test, []).append("2" if gap > 0 else "1" if gap == 0 else "0")
    return {
        test: {
            "marks": "".join(each),
            "unit": len(FAULTS) if test in ("same", "graded") else 1,
        }
        for test, each in found.items()
    }


def outcomes(record: dict[str, Any], test: str) -> Float[Tensor, " unit"]:
    """Share of pairs in the right order, by unit: a scene with its nine faults, or a pair."""
    found = record["tests"][test]
    if "values" in found:
        return torch.tensor(found["values"], dtype=torch.float64)
    pairs = torch.tensor([int(mark) / 2 for mark in found["marks"]], dtype=torch.float64)
    return pairs.unflatten(0, (-1, found["unit"])).mean(dim=1)


def compared(records: Records, first: str, second: str | None, test: str) -> Estimate | None:
    """A row, or the difference of two rows over the seeds that both have; None without any."""
    ours, theirs = records.get(first, {}), records.get(second or first, {})
    seeds = [seed for seed in sorted(ours) if seed in theirs and test in ours[seed]["tests"]]
    if not seeds:
        return None
    rows = torch.stack([outcomes(ours[seed], test) for seed in seeds])
    if second is not None:
        rows = rows - torch.stack([outcomes(theirs[seed], test) for seed in seeds])
    return estimate(rows)


def read_records(folder: Path) -> Records:
    """All results."""
    records: Records = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        records.setdefault(record["row"], {})[record["seed"]] = record
    return records


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: Estimate | None) -> str:
    """Text of an estimate, or of its absence."""
    return "not run" if value is None else value.show()


def claim_lines(records: Records) -> list[list[str]]:
    """Outcome of each claim on each of its tests."""
    lines = []
    for claim in CLAIMS:
        rows = f"`{claim.first}`" + f" - `{claim.second}`" * bool(claim.second)
        parts = []
        for test in claim.tests:
            found = compared(records, claim.first, claim.second, test)
            if found is not None:
                shown = found.show(signed=claim.second is not None)
                parts.append(f"{test} {shown}: {found.verdict(claim.margin)}")
        lines.append([claim.says, rows, "<br>".join(parts) or "not run"])
    return lines


def measure_lines(records: Records) -> list[list[str]]:
    """Results on uncertainty."""
    lines = []
    for name, says in MEASURES.items():
        found = compared(records, "uncertainty", None, name)
        verdict = ""
        if found is not None and name.endswith("_ratio"):
            found = Estimate(found.value / 100, found.half / 100)
            shown = f"{found.value:.2f} ± {found.half:.2f}"
        else:
            shown = cell(found)
        if found is not None and name in BANDS:
            low, high = BANDS[name]
            inside = low < found.value - found.half and found.value + found.half <= high + 1e-9
            verdict = "**held**" if inside else "**did not hold**"
        lines.append([says, shown, verdict])
    return lines


def rows_table(records: Records, on: str, tests: Sequence[str]) -> str:
    """Results of the rows tested on one kind of clips."""
    found = [
        row for row in ROWS if row.name in records and row.on == on and row.kind != "uncertainty"
    ]
    sizes = next(iter(records[found[0].name].values()))["tests"] if found else {}
    heads = [
        f"{test} ({len(sizes[test]['marks'])} pairs)" if "marks" in sizes.get(test, {}) else test
        for test in tests
    ]
    rows = [
        [f"`{row.name}`: {row.says}"]
        + [cell(compared(records, row.name, None, test)) for test in tests]
        for row in found
    ]
    return table(["row", *heads], rows)


def cost_lines(records: Records) -> list[list[str]]:
    """Operations of each student, the most first, and what it loses against its teacher."""
    whole = TEACHER.tflop or 0.0
    students = [(row.tflop, row.name) for row in ROWS if row.kind == "student" and row.tflop]
    lines = []
    for tflop, name in sorted(students, reverse=True):
        lost = [compared(records, name, TEACHER.name, test) for test in CONTENT]
        shown = ["not run" if each is None else each.show(signed=True) for each in lost]
        lines.append([f"`{name}`", f"{tflop:.4g}", f"{whole / tflop:.3g}", *shown])
    return lines


def page(records: Records) -> str:
    """The whole page; its words are in `moments_page.md`."""
    missing = [row.name for row in ROWS if row.name not in records]
    some = [
        f"`{row.name}` ({len(records[row.name])})"
        for row in ROWS
        if row.name in records and len(records[row.name]) < 5
    ]
    words = Path(__file__).with_suffix(".md").read_text()
    return words.format(
        main=rows_table(records, "faults", TESTS),
        semantic=rows_table(records, "semantic", SEMANTIC),
        own=rows_table(records, "own", OWN),
        costs=table(["student", "TFLOP", "times fewer", *CONTENT], cost_lines(records)),
        claims=table(["claim", "rows", "points, outcome"], claim_lines(records)),
        measures=table(["measure", "value", "outcome"], measure_lines(records)),
        missing=", ".join(f"`{name}`" for name in missing) or "none",
        some=", ".join(some) or "none",
    )
