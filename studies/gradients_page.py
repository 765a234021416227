"""The page of the study of gradients: a table of rows, one of faults, and what follows."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from gtsvj_reward.files import write_text
from studies.page import Estimate

BASES = ("gtsvj-toy", "gtsvj-toy-lora", "energy", "hand")
CLIMBING = (*BASES, "gtsvj-toy, last step 0.3", "energy, last step 0.3", "hand, last step 0.3")
"""Rows whose gradient is followed for ten steps."""
SAYS = {
    "gtsvj-toy": "the bundled judge of moments: energy, ratings and comparisons",
    "gtsvj-toy-lora": "the bundled judge of the paper's recipe",
    "energy": "moments, an energy without labels",
    "hand": "hand-made statistics of the latents, an energy without labels",
    "random": "moments with random weights",
}
CHANGES = {
    "noise": ", mean over 4 draws of noise on the latents, deviation {0}",
    "R1 and R2": ", fitted with approximate R1 and R2, strength {0}",
    "last step": ", through the generator's last step from {0} of noise",
}
Record = Mapping[str, Any]


def per_scene(record: Record, measure: str) -> list[float]:
    """The mean over faults for each scene."""
    columns = [found[measure] for found in record["faults"].values() if measure in found]
    return [mean(values) for values in zip(*columns, strict=True)]


def shown(values: list[float], places: int = 3, sign: str = "+") -> str:
    """A mean with its 95% interval over scenes."""
    estimate = Estimate.of(values)
    return f"{estimate.value:{sign}.{places}f} ± {estimate.half or 0.0:.{places}f}"


def says(name: str) -> str:
    """Description of a row."""
    if name in SAYS:
        return f"`{name}`: {SAYS[name]}"
    base, change = name.split(", ", 1)
    kind, value = change.rsplit(" ", 1)
    return f"`{base}`{CHANGES[kind].format(value)}"


def table(records: Mapping[str, Record]) -> str:
    """A row per score."""
    lines = [
        "| score | clean above faulty | cosine | distance after ten steps | "
        "steadiness that came back |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, record in records.items():
        distance = shown(per_scene(record, "distance"), sign="-") if name in CLIMBING else ""
        lines.append(
            f"| {says(name)} | {100 * mean(per_scene(record, 'right')):.0f}% | "
            f"{shown(per_scene(record, 'cosine'))} | {distance} | "
            f"{regained(record) if name in CLIMBING else ''} |"
        )
    return "\n".join(lines)


def regained(record: Record) -> str:
    """Steadiness that the ascent gains, as a share of what the fault took; mean over scenes."""
    gained, possible = per_scene(record, "steadier"), per_scene(record, "possible")
    whole = mean(possible)
    estimate = Estimate.of([value / whole for value in gained])
    return f"{100 * estimate.value:.0f} ± {100 * (estimate.half or 0.0):.0f}%"


def by_fault(records: Mapping[str, Record]) -> str:
    """Cosine of the rows that climb, a row per fault."""
    names = [name for name in CLIMBING if name in records]
    lines = [
        "| fault | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for fault in next(iter(records.values()))["faults"]:
        cells = [shown(records[name]["faults"][fault]["cosine"]) for name in names]
        lines.append(f"| {fault.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_page(records: Mapping[str, Record], page: Path) -> None:
    """Write the page from what has been measured.

    Raises:
        ValueError: if nothing has been.
    """
    if not records:
        raise ValueError("nothing was measured yet: run `python -m studies.gradients`")
    first = next(iter(records.values()))["faults"]
    text = (Path(__file__).parent / "gradients_page.md").read_text()
    for key, value in {
        "rows": table(records),
        "faults": by_fault(records),
        "scenes": str(len(next(iter(first.values()))["cosine"])),
    }.items():
        text = text.replace("{" + key + "}", value)
    write_text(page, text)
