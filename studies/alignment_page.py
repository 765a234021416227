"""The page of the alignment study: a table of differences, curves, film strips."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from gtsvj_reward.files import write_text
from gtsvj_reward.plotting.canvas import (
    FAINT,
    OTHER_STYLES,
    add_axes,
    new_figure,
    save,
    style_panel,
)
from studies.page import Estimate

MEASURES = ("reward", "steadiness", "caption")
TITLES = {
    "reward": "reward (trained on)",
    "steadiness": "steadiness (only watched)",
    "caption": "caption (only watched)",
}
VERDICTS = {
    "**rises**": "**held**",
    "**falls**": "**did not hold**",
    "inconclusive": "inconclusive",
    "one seed": "inconclusive, one seed",
}
"""Outcome of a claim by its interval: above, below or around its bound."""
Row = tuple[str, str]
"""Algorithm and judge."""
Records = Mapping[Row, Sequence[Mapping[str, Any]]]


def planned(config: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Algorithm, judge and seed of every run, in their order."""
    for row in config["rows"]:
        for seed in row["seeds"]:
            for name in row["algorithms"]:
                yield name, row["judge"], seed


def file_name(algorithm: str, judge: str, seed: int) -> str:
    """Path of the result of a run."""
    return f"{algorithm}-{judge}-{seed}.json"


def read_records(results: Path, config: Mapping[str, Any]) -> Records:
    """Finished runs of each row, by seed; rows without runs are left out."""
    found: dict[Row, list[dict[str, Any]]] = {}
    for name, judge, seed in sorted(planned(config), key=lambda run: run[2]):
        path = results / file_name(name, judge, seed)
        if path.exists():
            found.setdefault((name, judge), []).append(json.loads(path.read_text()))
    order = dict.fromkeys((name, judge) for name, judge, _ in planned(config))
    return {row: found[row] for row in order if row in found}


def called(row: Row) -> str:
    """A row by name."""
    return f"{row[0].replace('_', ' ')}, `{row[1]}`"


def gain(record: Mapping[str, Any], measure: str, place: str) -> float:
    """Mean of a measure over fresh clips, less that of the untrained generator's."""
    return mean(record[place][measure]) - mean(record["before"][measure])


def outcome(estimate: Estimate) -> str:
    """Outcome of an interval."""
    if estimate.half is None:
        return "one seed"
    if estimate.value - estimate.half > 0:
        return "**rises**"
    return "**falls**" if estimate.value + estimate.half < 0 else "inconclusive"


def table(records: Records, place: str, *, chosen: bool = False) -> str:
    """Gains of every measure, over seeds; without outcomes if they chose the checkpoint."""
    lines = [
        "| algorithm, judge | measure | untrained | gain, 95% t interval | each seed | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row, runs in records.items():
        for measure in MEASURES:
            gains = [gain(run, measure, place) for run in runs]
            estimate = Estimate.of(gains)
            start = mean(mean(run["before"][measure]) for run in runs)
            half = "" if estimate.half is None else f" ± {estimate.half:.2f}"
            each = ", ".join(f"{value:+.2f}" for value in gains)
            lines.append(
                f"| {called(row)} | {TITLES[measure]} | {start:.2f} | "
                f"{estimate.value:+.2f}{half} | {each} | {'' if chosen else outcome(estimate)} |"
            )
    return "\n".join(lines)


def draw_curves(records: Records, path: Path) -> None:
    """Each measure at the checkups, a row per algorithm and judge, a line per seed."""
    figure = new_figure(10.5, 2.5 * len(records) + 0.4)
    for place, (row, runs) in enumerate(records.items()):
        for column, measure in enumerate(MEASURES):
            bottom = 0.6 + 2.5 * (len(records) - 1 - place)
            axes = add_axes(figure, 0.9 + 3.3 * column, bottom, 2.6, 1.5)
            name = called(row).replace("`", "").replace(", ", "\n") if column == 0 else ""
            style_panel(axes, title=TITLES[measure], xlabel="iteration", ylabel=name)
            for run, style in zip(runs, OTHER_STYLES, strict=False):
                steps, values = curve(run["journal"], measure)
                axes.plot(steps, values, color=style.colour, marker=style.marker, markersize=4)
                axes.axhline(values[0], color=FAINT, linewidth=0.6)
    save(figure, path)


def curve(journal: Sequence[Mapping[str, float]], measure: str) -> tuple[list[float], list[float]]:
    """Iterations of the checkups, and a measure at each."""
    key = "proxy" if measure == "reward" else f"eval/{measure}"
    entries = [entry for entry in journal if key in entry]
    return [entry["iteration"] for entry in entries], [entry[key] for entry in entries]


def endings(records: Records) -> str:
    """How runs ended, and what they cost."""
    lines = []
    for row, runs in records.items():
        minutes = sum(run["cpu_minutes"] for run in runs) / len(runs)
        lines.append(f"- {called(row)}: {minutes:.0f} CPU minutes a run, measuring included.")
        lines += [
            f"  Seed {run['seed']} stopped: {run['stopped']}." for run in runs if run["stopped"]
        ]
    return "\n".join(lines)


def missing(results: Path, config: Mapping[str, Any]) -> str:
    """Runs of the configuration that have no result."""
    seeds: dict[Row, list[str]] = {}
    for name, judge, seed in planned(config):
        if not (results / file_name(name, judge, seed)).exists():
            seeds.setdefault((name, judge), []).append(str(seed))
    if not seeds:
        return "All runs of the configuration were made."
    rows = [f"- {called(row)}: seeds {', '.join(found)}" for row, found in seeds.items()]
    return "Of the configuration, these runs were **not made** so far:\n\n" + "\n".join(rows)


def claim_bound(claim: Mapping[str, Any], records: Records) -> tuple[str, float] | None:
    """Text of a claim, and the bound of its interval; None: undecidable.

    A multiple of another judge's gain is that of the mean over seeds, of zero where it is lower.
    """
    what = f"{called((claim['algorithm'], claim['judge']))}: gain of {claim['measure']}"
    if "above" in claim:
        return f"{what} is above {claim['above']:g}", claim["above"]
    others = records.get((claim["algorithm"], claim["than"]))
    if not others:
        return None
    other = mean(gain(run, claim["measure"], "last") for run in others)
    bound = claim["times"] * max(other, 0.0)
    text = f"{what} is at least {claim['times']} times that with `{claim['than']}`"
    return f"{text} ({other:+.2f}): above {bound:.2f}", bound


def claims(records: Records, config: Mapping[str, Any]) -> str:
    """Outcome of every claim, by the last adapter."""
    lines = ["| claim | gain | outcome |", "| --- | ---: | --- |"]
    for claim in config["claims"]:
        found = claim_bound(claim, records)
        runs = records.get((claim["algorithm"], claim["judge"]))
        if found is None or not runs:
            row = called((claim["algorithm"], claim["judge"]))
            lines.append(f"| {row}: {claim['measure']} | | not run yet |")
            continue
        text, bound = found
        estimate = Estimate.of([gain(run, claim["measure"], "last") for run in runs])
        half = "" if estimate.half is None else f" ± {estimate.half:.2f}"
        above = Estimate(estimate.value - bound, estimate.half, estimate.seeds)
        lines.append(f"| {text} | {estimate.value:+.2f}{half} | {VERDICTS[outcome(above)]} |")
    return "\n".join(lines)


def write_page(results: Path, page: Path, config: Mapping[str, Any]) -> None:
    """Write `results.md` and its picture from what has been run."""
    records = read_records(results, config)
    if not records:
        raise ValueError(f"no results in {results}: run `python -m studies.alignment`")
    draw_curves(records, page / "curves.png")
    notes = results / "notes.md"
    judges = [f"- `{name}`: {spec['says']}" for name, spec in config["judges"].items()]
    text = (Path(__file__).parent / "alignment_page.md").read_text()
    for key, value in {
        "notes": notes.read_text().strip() if notes.exists() else "",
        "judges": "\n".join(judges),
        "claims": claims(records, config),
        "sound": table(records, "after", chosen=True),
        "last": table(records, "last"),
        "endings": endings(records),
        "missing": missing(results, config),
        "clips": str(config["fresh_clips"]),
    }.items():
        text = text.replace("{" + key + "}", value)
    write_text(page / "results.md", text)
