"""The page of the alignment study: a table of differences, curves, film strips."""

import json
from collections.abc import Mapping, Sequence
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
Records = Mapping[str, Sequence[Mapping[str, Any]]]


def read_records(results: Path, config: Mapping[str, Any]) -> Records:
    """Algorithm -> its records, by seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in config["algorithms"]:
        paths = sorted(results.glob(f"{name}-*.json"))
        found[name] = [json.loads(path.read_text()) for path in paths]
    return found


def gain(record: Mapping[str, Any], measure: str, place: str) -> float:
    """Mean of a measure over fresh clips, less that of the untrained generator's."""
    return mean(record[place][measure]) - mean(record["before"][measure])


def outcome(estimate: Estimate) -> str:
    """What an interval says."""
    if estimate.half is None:
        return "one seed"
    if estimate.value - estimate.half > 0:
        return "**rises**"
    return "**falls**" if estimate.value + estimate.half < 0 else "cannot be told"


def table(records: Records, place: str, *, chosen: bool = False) -> str:
    """Gains of every measure, over seeds; without outcomes if they chose the checkpoint."""
    lines = [
        "| algorithm | measure | untrained | gain, 95% t interval over seeds | each seed | |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for name, runs in records.items():
        for measure in MEASURES:
            if not runs:
                continue
            gains = [gain(run, measure, place) for run in runs]
            estimate = Estimate.of(gains)
            start = mean(mean(run["before"][measure]) for run in runs)
            half = "" if estimate.half is None else f" ± {estimate.half:.2f}"
            each = ", ".join(f"{value:+.2f}" for value in gains)
            lines.append(
                f"| {name.replace('_', ' ')} | {TITLES[measure]} | {start:.2f} | "
                f"{estimate.value:+.2f}{half} | {each} | {'' if chosen else outcome(estimate)} |"
            )
    return "\n".join(lines)


def draw_curves(records: Records, path: Path) -> None:
    """Each measure at the checkups, a row per algorithm, a line per seed."""
    names = [name for name, runs in records.items() if runs]
    figure = new_figure(10.5, 2.5 * len(names) + 0.4)
    for row, name in enumerate(names):
        for column, measure in enumerate(MEASURES):
            bottom = 0.6 + 2.5 * (len(names) - 1 - row)
            axes = add_axes(figure, 0.9 + 3.3 * column, bottom, 2.6, 1.5)
            algorithm = name.replace("_", " ") if column == 0 else ""
            style_panel(axes, title=TITLES[measure], xlabel="iteration", ylabel=algorithm)
            for run, style in zip(records[name], OTHER_STYLES, strict=False):
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
    """How each run ended, and what it cost."""
    lines = []
    for name, runs in records.items():
        for run in runs:
            how = run["stopped"] or "ran to its end"
            lines.append(
                f"- {name.replace('_', ' ')}, seed {run['seed']}: {how}; "
                f"{run['cpu_minutes']:.0f} CPU minutes, measuring included."
            )
    return "\n".join(lines)


def write_page(results: Path, page: Path, config: Mapping[str, Any]) -> None:
    """Write `results.md` and its picture from what has been run."""
    records = read_records(results, config)
    if not any(records.values()):
        raise ValueError(f"no results in {results}: run `python -m studies.alignment`")
    draw_curves(records, page / "curves.png")
    notes = results / "notes.md"
    text = (Path(__file__).parent / "alignment_page.md").read_text()
    for key, value in {
        "notes": notes.read_text().strip() if notes.exists() else "",
        "sound": table(records, "after", chosen=True),
        "last": table(records, "last"),
        "endings": endings(records),
        "clips": str(config["fresh_clips"]),
    }.items():
        text = text.replace("{" + key + "}", value)
    write_text(page / "results.md", text)
