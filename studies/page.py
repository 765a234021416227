"""The study's page: the outcome of each claim, tables with intervals, plots."""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

from gtsvj_reward.files import write_text
from gtsvj_reward.metrics.pairwise import proportion_interval
from gtsvj_reward.toy.corpus import SEEN, UNSEEN
from gtsvj_reward.toy.degradations import FAULTS
from studies.plots import draw_budgets, draw_curves, draw_faults, draw_rows
from studies.rows import BASELINES, CHEAPER, rows
from studies.running import operations

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Row -> seed -> what was measured."""
Measure = Callable[[Mapping[str, Any]], float]

POINT = 0.01
"""Margin within which a cheaper judge counts as equally good."""
SMALL = 0.02
"""Two points: a difference whose whole interval is smaller counts as none."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with a 95% t interval; the interval is None for one seed."""

    value: float
    half: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From one value per seed."""
        count = len(values)
        if count < 2:
            return cls(values[0], None, count)
        half = float(student.ppf(0.975, count - 1)) * stdev(values) / math.sqrt(count)
        return cls(mean(values), half, count)

    def show(self, *, signed: bool = False) -> str:
        """Text in points, as `63.1 ± 1.2`."""
        value = f"{100 * self.value:+.1f}" if signed else f"{100 * self.value:.1f}"
        return value if self.half is None else f"{value} ± {100 * self.half:.1f}"


@dataclass(frozen=True)
class Claim:
    """A claim that one row is better than another by a metric."""

    text: str
    better: str
    worse: str
    measure: Measure
    by: str
    """The measure in words."""

    def outcome(self, results: Results) -> tuple[str, Estimate | None]:
        """Held, did not hold, or inconclusive; and the difference, paired by seed."""
        first, second = results.get(self.better, {}), results.get(self.worse, {})
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            return "not run yet", None
        gaps = [self.measure(first[seed]) - self.measure(second[seed]) for seed in seeds]
        gap = Estimate.of(gaps)
        if gap.half is None:
            return "inconclusive (one seed)", gap
        if gap.value - gap.half > 0:
            return "**held**", gap
        if gap.value + gap.half < SMALL:
            return "**did not hold**", gap
        return "inconclusive", gap


def group(name: str, part: str = "accuracy") -> Measure:
    """Accuracy of one group of test pairs."""
    return lambda record: float(record[part][name][0])


def average(names: Iterable[str], part: str = "accuracy") -> Measure:
    """Mean accuracy over some groups."""
    chosen = list(names)
    return lambda record: mean(float(record[part][name][0]) for name in chosen)


CROSS = group("cross/seen")
MEASURES: dict[str, Measure] = {
    "cross-content": CROSS,
    "cross, unseen faults": group("cross/unseen"),
    "same content": average(f"same/{fault}" for fault in SEEN),
    "same, unseen faults": average(f"same/{fault}" for fault in UNSEEN),
    "mild over strong": average(f"graded/{fault}" for fault in FAULTS),
    "9 frames": group("short"),
    "25 frames": group("long"),
}
ZERO_SHOT = average((f"same/{fault}" for fault in FAULTS), "zero_shot")


def claims() -> list[Claim]:
    """All claims, the paper's first."""
    cross = "cross-content pairs"
    zero = "energy alone, clean over faulty, mean of nine faults"
    lengths = average(("short", "long"))
    found = [
        Claim("The discriminator stage improves the reward (Table 1, Figure 5)", "full",
              "no_discriminator", CROSS, cross),
        Claim("... on faults that no label covered", "full", "no_discriminator",
              group("cross/unseen"), "cross-content pairs of unseen faults"),
        Claim("... with few labels (50)", "labels_50", "bare_50", CROSS, cross),
        Claim("... with few labels (150)", "labels_150", "bare_150", CROSS, cross),
        Claim("A trained generator is a better base than the same shape with random weights",
              "full", "random_base", CROSS, cross),
        Claim("... for the energy without labels", "full", "random_base", ZERO_SHOT, zero),
        Claim("Perturbed negatives improve the reward over generated ones alone (Figure 6)",
              "full", "generated_only", CROSS, cross),
        Claim("... and the energy without labels", "full", "generated_only", ZERO_SHOT, zero),
        Claim("Truncation in training helps at other lengths (Table 1, p = 0)", "full",
              "no_truncation", lengths, "pairs of 9 and of 25 frames"),
        Claim("LoRA on the middle third is better than on the last (Figure 4)", "lora_middle",
              "full", CROSS, cross),
        Claim("LoRA on the last third is better than on the first", "full", "lora_first", CROSS,
              cross),
        Claim("All blocks are better than the first half of them", "full", "half_depth", CROSS,
              cross),
        Claim("A larger adapter (rank 32, all blocks), aspects trained longer, helps",
              "larger_adapter", "full", CROSS, cross),
        Claim("Clean latents are read better at timestep 0 than at 400", "full", "timestep_400",
              CROSS, cross),
        Claim("Table A.1 is better than uniform probabilities", "full", "uniform_negatives",
              ZERO_SHOT, zero),
        Claim("Probabilities calibrated on this world beat Table A.1", "calibrated_negatives",
              "full", ZERO_SHOT, zero),
        Claim("Generated clips as anchors help", "anchors_negatives", "full", CROSS, cross),
        Claim("The loss of each step is better than that of their mean", "per_step_loss", "full",
              CROSS, cross),
        Claim("Keeping the energy as an input of the aspect head helps", "keep_energy", "full",
              CROSS, cross),
        Claim("Pooling over time by mean and deviation helps", "mean_std", "full", CROSS, cross),
        Claim("Attention pooling of the tokens helps", "attention", "full", CROSS, cross),
        Claim("Rao-Kupper's loss is better than Eq. 7 as printed", "rao_kupper", "full", CROSS,
              cross),
    ]  # fmt: skip
    found += [
        Claim(f"The judge beats the baseline `{name}`", "full", name, CROSS, cross)
        for name in BASELINES
    ]
    return found


def read_results(folder: Path) -> Results:
    """All result files of a folder."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        found[record["row"]][record["seed"]] = record
    return found


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *lines))


def rows_table(results: Results) -> str:
    """Accuracies of all rows."""
    lines = []
    for name in [*(row.name for row in rows()), *BASELINES]:
        records = [*results.get(name, {}).values()]
        if not records:
            lines.append([f"`{name}`", "0", *["not run yet"] * len(MEASURES)])
            continue
        cells = [Estimate.of([of(record) for record in records]).show() for of in MEASURES.values()]
        lines.append([f"`{name}`", str(len(records)), *cells])
    return table(["row", "seeds", *MEASURES], lines)


def cost_table(results: Results, costs: Mapping[str, int]) -> str:
    """Accuracy and its difference to `full` within a seed, against operations for one score."""
    lines = []
    for name in CHEAPER:
        cost = [f"{costs[name] / 1e6:.1f}", f"{costs[name] / costs['full']:.2f}"]
        records = results.get(name, {})
        if not records:
            lines.append([f"`{name}`", *cost, "0", *["not run yet"] * 3])
            continue
        accuracy = Estimate.of([CROSS(record) for record in records.values()]).show()
        lines.append([f"`{name}`", *cost, str(len(records)), accuracy, *loss(results, name)])
    head = ["row", "MFLOP", "of `full`", "seeds", "cross-content", "minus `full`", "outcome"]
    return table(head, lines)


def loss(results: Results, name: str) -> list[str]:
    """Difference of a row to `full` within a seed, and whether it loses more than a point."""
    if name == "full":
        return ["", ""]
    _, gap = Claim("", name, "full", CROSS, "").outcome(results)
    if gap is None:
        return ["not run yet", ""]
    outcome = "inconclusive"
    if gap.half is not None and gap.value - gap.half > -POINT:
        outcome = "loses less than a point"
    elif gap.half is not None and gap.value + gap.half < -POINT:
        outcome = "**loses more than a point**"
    return [f"{gap.show(signed=True)} ({gap.seeds} seeds)", outcome]


def row_costs(settings: Mapping[str, Any]) -> dict[str, int]:
    """Operations of one score of each row in `CHEAPER`."""
    judges = {row.name: row.settings.judge for row in rows()}
    return {
        name: operations(settings["pipeline"], {**settings["judge"], **judges[name]})
        for name in CHEAPER
    }


def discriminators(results: Results) -> list[str]:
    """Rows that have been run, one for each discriminator."""
    own = [row for row in rows() if row.stage1 is not None and row.stage1.name == row.name]
    return [row.name for row in own if results.get(row.name)]


def perturbation_table(results: Results) -> str:
    """Energy of unseen real clips against their own perturbations, and against generated clips."""
    names = discriminators(results)
    kinds = sorted({kind for n in names for r in results[n].values() for kind in held_out(r)})
    lines = []
    for kind in kinds:
        shares = [[held_out(r)[kind] for r in results[name].values()] for name in names]
        lines.append([kind.replace("_", " "), *(Estimate.of(values).show() for values in shares)])
    return table(["against", *(f"`{name}`" for name in names)], lines)


def held_out(record: Mapping[str, Any]) -> dict[str, float]:
    """Held-out accuracy of a discriminator per kind of negative."""
    found = record["stage1"]["held_out"]
    return {name.removeprefix("accuracy/"): float(value) for name, value in found.items()}


def zero_shot_table(results: Results) -> str:
    """Energy alone per fault, without labels."""
    names, lines = discriminators(results), []
    for fault in FAULTS:
        of = group(f"same/{fault}", "zero_shot")
        cells = [Estimate.of([of(r) for r in results[name].values()]).show() for name in names]
        lines.append([fault.replace("_", " "), *cells])
    return table(["fault", *(f"`{name}`" for name in names)], lines)


def shipped_table(results: Results, seed: int = 0) -> str:
    """The bundled judge per fault, with Wilson intervals over the scenes."""
    record = results.get("full", {}).get(seed)
    if record is None:
        return "Not run yet."
    lines = [
        shipped_line(record, [f"same/{fault}"], fault.replace("_", " "), fault in SEEN)
        for fault in FAULTS
    ]
    for name, part in (("all seen faults", SEEN), ("all unseen faults", UNSEEN)):
        groups = [f"same/{fault}" for fault in part]
        lines.append(shipped_line(record, groups, name, part is SEEN))
    lines.append(shipped_line(record, ["cross/seen"], "cross-content, seen faults", True))
    lines.append(shipped_line(record, ["cross/unseen"], "cross-content, unseen faults", False))
    head = ["fault", "in its labels", "clean or better clip first, %", "95% interval", "outcome"]
    return table(head, lines)


def shipped_line(
    record: Mapping[str, Any], groups: Sequence[str], name: str, seen: bool
) -> list[str]:
    """One row of `shipped_table`: some groups of pairs together."""
    counts = [record["accuracy"][group] for group in groups]
    pairs = sum(int(count) for _, count in counts)
    share = sum(value * count for value, count in counts) / pairs
    low, high = proportion_interval(share, pairs)
    outcome = "beats chance" if low > 0.5 else "**does not beat chance**"
    shown = f"{100 * low:.0f} to {100 * high:.0f} ({pairs} pairs)"
    return [name, "yes" if seen else "no", f"{100 * share:.1f}", shown, outcome]


def outcomes_table(results: Results) -> str:
    """Claim by claim."""
    lines = []
    for claim in claims():
        outcome, gap = claim.outcome(results)
        shown = "" if gap is None else f"{gap.show(signed=True)} ({gap.seeds} seeds)"
        rows_compared = f"`{claim.better}` - `{claim.worse}`"
        lines.append([claim.text, outcome, shown, rows_compared, claim.by])
    head = ["claim", "outcome", "difference in points", "rows", "measured on"]
    return table(head, lines)


def write_page(results_folder: Path, out: Path, settings: Mapping[str, Any]) -> None:
    """Write `README.md` and its pictures."""
    results = read_results(results_folder)
    if not results:
        raise ValueError(f"no results in {results_folder}: run the study first")
    out.mkdir(parents=True, exist_ok=True)
    draw_rows(results, out / "rows.png")
    draw_faults(results, out / "faults.png")
    draw_budgets(results, out / "budgets.png")
    draw_curves(results, out / "curves.png")
    template = (Path(__file__).parent / "page.md").read_text()
    seconds = sum(record["seconds"] for seeds in results.values() for record in seeds.values())
    page = template.format(
        outcomes=outcomes_table(results),
        rows=rows_table(results),
        costs=cost_table(results, row_costs(settings)),
        zero_shot=zero_shot_table(results),
        shipped=shipped_table(results),
        perturbed=perturbation_table(results),
        hours=f"{seconds / 3600:.1f}",
        runs=sum(len(seeds) for seeds in results.values()),
        seen=", ".join(SEEN).replace("_", " "),
        unseen=", ".join(UNSEEN).replace("_", " "),
        sizes=settings["sizes"],
        labels=settings["labels"],
        steps={n: settings[n]["max_steps"] for n in ("discriminator", "aspects", "preference")},
        notes=(results_folder / "notes.md").read_text()
        if (results_folder / "notes.md").exists()
        else "",
    )
    write_text(out / "README.md", page)
