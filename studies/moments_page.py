"""The page of the study of moments: its claims, how each is decided, and what came out."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from gtsvj_reward.toy.degradations import FAULTS
from studies.data import TestPair

TESTS = ("cross", "unseen", "same", "graded", "short", "long")
CONTENT = ("cross", "unseen", "same", "graded")
"""Tests of clips as long as those of training."""

Reads = Literal["trained", "random", "statistics"]
"""What makes features of a clip: moments of the generator, or of the same shape with random
weights, or hand-made statistics of the latents."""

Records = dict[str, dict[int, dict[str, Any]]]
"""Row -> seed -> its result."""


@dataclass(frozen=True)
class Claim:
    """Something that the numbers can hold or refute, written down before they were there."""

    says: str
    first: str
    second: str | None = None
    """The row that the first is compared with; None compares with `margin` itself."""
    tests: tuple[str, ...] = CONTENT
    margin: float = 0.0
    """It holds if the whole interval is above this many points."""


@dataclass(frozen=True)
class Row:
    """A way to fit a judge."""

    name: str
    says: str
    """What it is, for the page."""
    kind: Literal["energy", "reward", "comparisons", "labels", "uncertainty"] = "reward"
    """`labels`: fitted to labels of the clips that it is tested `on`."""
    reads: Reads = "trained"
    negatives: str | None = "extended"
    """Of the energy that it has; None: it has none."""
    labels: int | None = None
    """Rated clips, if not as many as the settings say."""
    taps: str = "three"
    """`three`: the package's default, three blocks and the latents; `last`, `latents`, `blocks`
    (the three without the latents), `all`."""
    on: Literal["faults", "semantic", "own"] = "faults"
    """Clips of the tests: with faults, with events that the world forbids, or of generators."""
    energy_input: Literal["free", "penalised"] = "free"
    """Whether ridge regression of aspects penalises the energy."""


BLOCKS = (
    (
        Row("reward", "moments, the whole recipe: energy, 400 ratings, 300 comparisons"),
        Row("hand_ridge", "hand-made statistics, ratings and comparisons", reads="statistics",
            negatives=None),
        Row("hand_reward", "... with an energy", reads="statistics"),
        Row("energy", "moments, the energy alone, no label", "energy"),
        Row("hand_energy", "hand-made statistics, the energy alone", "energy", "statistics"),
        Row("no_energy", "`reward` without an energy", negatives=None),
    ),
    (
        Row("reward_50", "`reward`, 50 ratings", labels=50),
        Row("no_energy_50", "`no_energy`, 50 ratings", labels=50, negatives=None),
        Row("reward_150", "`reward`, 150 ratings", labels=150),
        Row("no_energy_150", "`no_energy`, 150 ratings", labels=150, negatives=None),
    ),
    (
        Row("taps_last", "`reward`, the last block alone", taps="last"),
        Row("taps_latents", "`reward`, the latents alone", taps="latents"),
        Row("taps_blocks", "`reward`, three blocks without the latents", taps="blocks"),
    ),
    (
        Row("energy_table", "`energy`, negatives of Table A.1", "energy", negatives="table"),
        Row("reward_table", "`reward`, negatives of Table A.1", negatives="table"),
    ),
    (Row("uncertainty", "the uncertainty of `reward` before its comparisons", "uncertainty"),),
    (
        Row("comparisons", "energy and 300 comparisons, no rating", "comparisons"),
        Row("hand_comparisons", "... of hand-made statistics", "comparisons", "statistics"),
        Row("comparisons_no_energy", "300 comparisons alone", "comparisons", negatives=None),
    ),
    (
        Row("random_energy", "`energy` on a random base", "energy", "random"),
        Row("random_reward", "`reward` on a random base", reads="random"),
    ),
    (
        Row("reversal", "120 labelled pairs", "labels", negatives=None, on="semantic"),
        Row("reversal_random", "... of a random base", "labels", "random", None, on="semantic"),
        Row("reversal_hand", "... of hand-made statistics", "labels", "statistics", None,
            on="semantic"),
        Row("reversal_energy", "`energy`, no label", "energy", on="semantic"),
        Row("reversal_reward", "`reward`, fitted to other faults", on="semantic"),
    ),
    (
        Row("own_labels", "100 ratings of clips of other prompts", "labels", negatives=None,
            on="own"),
        Row("own_hand", "... of hand-made statistics", "labels", "statistics", None, on="own"),
        Row("own_random", "... of a random base", "labels", "random", None, on="own"),
        Row("own_with_energy", "100 ratings, with `energy`", "labels", on="own"),
        Row("own_transfer", "`reward`, fitted to faults of real clips", on="own"),
        Row("own_hand_transfer", "`hand_reward`, likewise", reads="statistics", on="own"),
        Row("own_energy", "`energy`, no label", "energy", on="own"),
    ),
    (Row("taps_all", "`reward`, all blocks and the latents", taps="all"),),
    (
        Row("penalised", "`reward`, the energy penalised as one more block",
            energy_input="penalised"),
        Row("penalised_50", "... 50 ratings", labels=50, energy_input="penalised"),
    ),
)  # fmt: skip
"""What is compared, the most important first; a block is run with every seed before the next."""

ROWS = tuple(row for block in BLOCKS for row in block)


CLAIMS = (
    Claim("The reward beats hand-made statistics with ridge regression", "reward", "hand_ridge"),
    Claim("... and hand-made statistics that are given an energy too", "reward", "hand_reward"),
    Claim("... and the energy of hand-made statistics", "reward", "hand_energy"),
    Claim("The energy beats the energy of hand-made statistics", "energy", "hand_energy"),
    Claim("Labels improve on the energy", "reward", "energy"),
    Claim("Blur and ghosting of latents improve the energy", "energy", "energy_table"),
    Claim("... and the reward", "reward", "reward_table"),
    Claim("The energy helps the reward at 50 labels", "reward_50", "no_energy_50"),
    Claim("... at 150 labels", "reward_150", "no_energy_150"),
    Claim("... at 400 labels", "reward", "no_energy"),
    Claim("A trained base beats a random one", "reward", "random_reward"),
    Claim("... for the energy", "energy", "random_energy"),
    Claim("Three blocks and the latents beat the last block", "reward", "taps_last"),
    Claim("... and the latents alone", "reward", "taps_latents"),
    Claim("... and the three blocks without the latents", "reward", "taps_blocks"),
    Claim("... and lose less than 1.5 points against all blocks", "reward", "taps_all",
          margin=-1.5),
    Claim("300 comparisons alone beat the energy", "comparisons", "energy"),
    Claim("... and hand-made statistics from the same comparisons and energy", "comparisons",
          "hand_comparisons"),
    Claim("The energy helps a judge of comparisons alone", "comparisons",
          "comparisons_no_energy"),
    Claim("The reward beats the bundled recipe trained with LoRA", "reward", "trained_full"),
    Claim("The reward beats hand-made ridge at other lengths", "reward", "hand_ridge",
          ("short", "long")),
    Claim("Labels on a generator's own clips: moments beat hand-made statistics",
          "own_labels", "own_hand", ("within", "best")),
    Claim("... and a judge that was fitted to faults of real clips", "own_labels", "own_transfer",
          ("within", "best")),
    Claim("A fall or bounce played backwards: moments of the trained base beat a random one",
          "reversal", "reversal_random", ("reversal",)),
    Claim("... and hand-made statistics", "reversal", "reversal_hand", ("reversal",)),
    Claim("... and the label-free energy is better than chance", "reversal_energy", None,
          ("reversal",), margin=50.0),
)  # fmt: skip

MEASURES = {
    "coverage_50": "Share of held-out ratings inside the 50% interval (claim: 45 to 55)",
    "coverage_80": "... inside the 80% interval (claim: 75 to 85)",
    "coverage_95": "... inside the 95% interval (claim: 90 to 98)",
    "optimised_larger": "Clips of which u is larger after 30 gradient steps on their own score "
    "(claim: above 50)",
    "noise_larger": "... larger on random noise than on a clean clip (claim: above 50)",
    "scaled_larger": "... larger on a clean clip times 1.5 than on itself (claim: above 50)",
    "optimised_ratio": "Mean ratio of u, optimised to clean",
    "noise_ratio": "... noise to clean",
    "scaled_ratio": "... times 1.5 to clean",
}
BANDS = {"coverage_50": (45, 55), "coverage_80": (75, 85), "coverage_95": (90, 98)} | dict.fromkeys(
    ("optimised_larger", "noise_larger", "scaled_larger"), (50, 100)
)
"""Measure -> where the whole interval must lie for the claim to hold, in percent."""


@dataclass(frozen=True)
class Estimate:
    """A mean in percent and half of its 95% interval."""

    value: float
    half: float
    """NaN with one seed."""

    def show(self, *, signed: bool = False) -> str:
        """As the page has it."""
        value = f"{self.value:+.1f}" if signed else f"{self.value:.1f}"
        return value if math.isnan(self.half) else f"{value} ± {self.half:.1f}"

    def verdict(self, margin: float) -> str:
        """Of the claim that the value is above the margin."""
        if math.isnan(self.half):
            return "cannot be told (one seed)"
        if self.value - self.half > margin:
            return "**held**"
        if self.value + self.half < margin:
            return "**the opposite holds**"
        if self.value + self.half < margin + 2:
            return "**did not hold**"
        return "cannot be told"


def estimate(values: Float[Tensor, "seed unit"]) -> Estimate:
    """Mean over seeds and test units, with an interval for other seeds and other units.

    With a = (variance of the seeds' means) / seeds and b = (variance of the units' means) / units,
    the variance is a + b, with the degrees of freedom of Satterthwaite. What is particular to a
    seed on a unit is counted in both: the interval errs on the wide side.
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
    """An estimate, or that there is none."""
    return "not run" if value is None else value.show()


def claim_lines(records: Records) -> list[list[str]]:
    """What came out of each claim on each of its tests."""
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
    """What the uncertainty does."""
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


def page(records: Records) -> str:
    """The whole page; its words are in `moments_page.md`."""
    found = [row for row in ROWS if row.name in records and row.kind != "uncertainty"]
    missing = [row.name for row in ROWS if row.name not in records]
    some = [
        f"`{row.name}` ({len(records[row.name])})"
        for row in ROWS
        if row.name in records and len(records[row.name]) < 5
    ]
    sizes = next(iter(records[found[0].name].values()))["tests"] if found else {}
    pairs = [f"{test} ({len(sizes[test]['marks'])} pairs)" for test in TESTS if test in sizes]
    rows = [
        [f"`{row.name}`: {row.says}"]
        + [cell(compared(records, row.name, None, test)) for test in TESTS]
        for row in found
    ]
    words = Path(__file__).with_suffix(".md").read_text()
    return words.format(
        main=table(["row", *(pairs or TESTS)], rows),
        claims=table(["claim", "rows", "points, outcome"], claim_lines(records)),
        measures=table(["measure", "value", "outcome"], measure_lines(records)),
        missing=", ".join(f"`{name}`" for name in missing) or "none",
        some=", ".join(some) or "none",
    )
