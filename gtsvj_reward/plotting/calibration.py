"""How hard each perturbation is to learn alone, and the sampling it leads to (Fig. A.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from gtsvj_reward.plotting.canvas import (
    FAINT,
    INK,
    draw_series,
    line_styles,
    new_figure,
    save,
    spoken,
    style_panel,
)

TAU = "\N{GREEK SMALL LETTER TAU}"


def plot_calibration(
    gradient_norms: Mapping[str, Sequence[float]],
    losses: Mapping[str, Sequence[float]],
    *,
    decay_times: Mapping[str, int | None],
    probabilities: Mapping[str, float],
    epsilon: float | Mapping[str, float],
    path: str | Path,
) -> Path:
    """Draw gradient norm and loss of each single-perturbation run, and the probabilities.

    Args:
        gradient_norms: kind -> gradient norm at steps 1, 2, ... of its run.
        losses: kind -> loss at those steps.
        decay_times: kind -> step at which the norm fell to ε (Eq. A.2); `None` for a run that never
            did, drawn hatched.
        probabilities: kind -> sampling probability.
        epsilon: threshold ε, one for all runs or one for each.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: arguments that do not name the same kinds.
    """
    kinds = list(gradient_norms)
    thresholds = (
        dict(epsilon) if isinstance(epsilon, Mapping) else dict.fromkeys(kinds, float(epsilon))
    )
    named = {
        "losses": losses,
        "decay_times": decay_times,
        "probabilities": probabilities,
        "epsilon": thresholds,
    }
    for name, values in named.items():
        if not kinds or set(values) != set(kinds):
            raise ValueError(
                f"`{name}` must name the kinds of `gradient_norms`, at least one: "
                f"got {sorted(values)} and {sorted(kinds)}"
            )
    return save(
        _calibration_figure(gradient_norms, losses, decay_times, probabilities, thresholds), path
    )


def _calibration_figure(
    gradient_norms: Mapping[str, Sequence[float]],
    losses: Mapping[str, Sequence[float]],
    decay_times: Mapping[str, int | None],
    probabilities: Mapping[str, float],
    thresholds: Mapping[str, float],
) -> Any:
    kinds = list(gradient_norms)
    figure = new_figure(13.0, 4.4)
    norms, loss, bars = figure.subplots(1, 3, width_ratios=(1.15, 1.15, 1))
    styles = line_styles(kinds)
    for kind in kinds:
        for panel, series in ((norms, gradient_norms[kind]), (loss, losses[kind])):
            draw_series(panel, range(1, len(series) + 1), series, styles[kind], spoken(kind))
    _draw_thresholds(norms, decay_times, thresholds)
    style_panel(norms, title="Gradient norm, one kind at a time", xlabel="step", ylabel="norm")
    norms.set_ylim(bottom=0)
    style_panel(loss, title="Loss", xlabel="step", ylabel="contrastive loss")
    _draw_bars(bars, decay_times, probabilities, {k: len(v) for k, v in gradient_norms.items()})
    handles, labels = norms.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncols=len(handles), frameon=False, fontsize=9
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1), w_pad=2.5)
    return figure


def _draw_thresholds(
    axes: Any, decay_times: Mapping[str, int | None], thresholds: Mapping[str, float]
) -> None:
    styles = line_styles(list(thresholds))
    if len(set(thresholds.values())) == 1:
        level = next(iter(thresholds.values()))
        axes.axhline(level, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2, label="threshold ε")
    else:
        for kind, level in thresholds.items():
            axes.axhline(level, color=styles[kind].colour, linestyle=(0, (4, 3)), linewidth=1.0)
        axes.plot([], [], color=FAINT, linestyle=(0, (4, 3)), label="threshold ε of each run")
    decayed = {kind: step for kind, step in decay_times.items() if step is not None}
    for position, (kind, step) in enumerate(decayed.items()):
        axes.plot(
            [step],
            [thresholds[kind]],
            marker="o",
            markersize=10,
            markerfacecolor="white",
            markeredgecolor=styles[kind].colour,
            markeredgewidth=2.2,
            linestyle="none",
            zorder=5,
            label=f"decay time {TAU}" if position == 0 else None,
        )


def _draw_bars(
    axes: Any,
    decay_times: Mapping[str, int | None],
    probabilities: Mapping[str, float],
    run_lengths: Mapping[str, int],
) -> None:
    kinds = sorted(probabilities, key=lambda kind: probabilities[kind])
    styles = line_styles(list(probabilities))
    drawn = axes.barh(
        [fill(spoken(kind), 13) for kind in kinds],
        [probabilities[kind] for kind in kinds],
        color=[styles[kind].colour for kind in kinds],
        height=0.62,
    )
    most = max(probabilities.values())
    for bar, kind in zip(drawn, kinds, strict=True):
        step = decay_times[kind]
        if step is None:
            bar.set_hatch("///")
            bar.set_edgecolor("white")
        note = f"> {run_lengths[kind]}" if step is None else f"= {step}"
        axes.text(
            bar.get_width() + 0.02 * most,
            bar.get_y() + bar.get_height() / 2,
            f"{probabilities[kind]:.3f}   {TAU} {note}",
            va="center",
            fontsize=9,
            color=INK,
        )
    style_panel(axes, title="Sampling probability", xlabel="probability")
    axes.grid(False, axis="y")
    axes.set_xlim(0, 1.75 * most)
