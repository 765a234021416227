"""Pictures of the study."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from gtsvj_reward.plotting.canvas import (
    FAINT,
    INK,
    OTHER_STYLES,
    add_axes,
    draw_series,
    new_figure,
    save,
    style_panel,
)
from gtsvj_reward.toy.degradations import FAULTS

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def values(results: Results, row: str, group: str, part: str = "accuracy") -> list[float]:
    """Accuracy of a group in percent, one per seed."""
    records = results.get(row, {}).values()
    return [100 * record[part][group][0] for record in records if part in record]


def draw_rows(results: Results, path: Path) -> None:
    """Cross-content accuracy of every row: each seed a dot, the mean a bar."""
    names = sorted(results, key=lambda n: mean(values(results, n, "cross/seen")))
    figure = new_figure(8, 0.28 * len(names) + 1.0)
    axes = add_axes(figure, 2.1, 0.6, 5.6, 0.28 * len(names) + 0.1)
    style_panel(axes, xlabel="cross-content pairs in the right order, %")
    for place, name in enumerate(names):
        points = values(results, name, "cross/seen")
        colour = OTHER_STYLES[1].colour if name == "full" else OTHER_STYLES[0].colour
        axes.plot(points, [place] * len(points), "o", color=colour, alpha=0.45, markersize=5)
        axes.plot([mean(points)], [place], "|", color=INK, markersize=13, markeredgewidth=2)
    axes.axvline(50, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    save(figure, path)


def draw_faults(results: Results, path: Path) -> None:
    """Per fault: clean over faulty, by the energy alone and by the whole recipe."""
    lines = {
        "energy, no labels": ("full", "zero_shot"),
        "energy, generated negatives only": ("generated_only", "zero_shot"),
        "whole recipe": ("full", "accuracy"),
        "no discriminator": ("no_discriminator", "accuracy"),
        "ridge regression": ("ridge", "accuracy"),
    }
    figure = new_figure(9, 4)
    axes = add_axes(figure, 0.7, 1.3, 8.0, 2.5)
    style_panel(axes, ylabel="clean clip scored higher, %")
    for number, (label, (row, part)) in enumerate(lines.items()):
        points = [values(results, row, f"same/{fault}", part) for fault in FAULTS]
        if not all(points):
            continue
        style = OTHER_STYLES[number]
        places = [index + 0.14 * (number - 2) for index in range(len(FAULTS))]
        axes.plot(places, [mean(p) for p in points], style.marker, color=style.colour, label=label)
    axes.axhline(50, color=FAINT, linewidth=1)
    axes.set_xticks(range(len(FAULTS)), [fault.replace("_", "\n") for fault in FAULTS])
    axes.legend(fontsize=8, ncols=5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    save(figure, path)


def draw_budgets(results: Results, path: Path) -> None:
    """Accuracy against the number of rated clips, with and without discriminator."""
    figure = new_figure(6, 3.6)
    axes = add_axes(figure, 0.7, 0.6, 5.0, 2.7)
    style_panel(axes, xlabel="rated clips", ylabel="cross-content accuracy, %")
    for number, (label, prefix, middle) in enumerate(
        (("with discriminator", "labels", "full"), ("without", "bare", "no_discriminator"))
    ):
        counts = {50: f"{prefix}_50", 150: f"{prefix}_150", 400: middle}
        counts |= {1000: f"{prefix}_1000", 2000: f"{prefix}_2000"}
        known = {c: values(results, row, "cross/seen") for c, row in counts.items()}
        known = {count: points for count, points in known.items() if points}
        style = OTHER_STYLES[number]
        for count, points in known.items():
            axes.plot([count] * len(points), points, style.marker, color=style.colour, alpha=0.35)
        axes.plot([*known], [mean(p) for p in known.values()], color=style.colour, label=label)
    axes.set_xscale("log")
    axes.legend(fontsize=9, frameon=False)
    save(figure, path)


def draw_curves(results: Results, path: Path) -> None:
    """Figure 6 of the paper in miniature: gradient norm and loss of three kinds of negatives."""
    figure = new_figure(9, 3.4)
    panels = {
        "grad_norm": add_axes(figure, 0.7, 0.6, 3.6, 2.4),
        "loss": add_axes(figure, 5.1, 0.6, 3.6, 2.4),
    }
    for key, axes in panels.items():
        style_panel(axes, xlabel="step", ylabel=key.replace("_", " "))
        for number, row in enumerate(("full", "generated_only", "random_base")):
            records = [r for r in results.get(row, {}).values() if "stage1" in r]
            if not records:
                continue
            curves = [record["stage1"]["curve"] for record in records]
            steps = [entry["step"] for entry in curves[0]]
            points = [mean(curve[i][key] for curve in curves) for i in range(len(steps))]
            draw_series(axes, steps, points, OTHER_STYLES[number], row.replace("_", " "))
    panels["loss"].axhline(-2.5, color=FAINT, linewidth=1)
    panels["grad_norm"].legend(fontsize=8, frameon=False)
    save(figure, path)
