"""One page on a discriminator's training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gtsvj_reward.plotting.canvas import (
    FAINT,
    INK,
    LINE_STYLES,
    LineStyle,
    draw_series,
    line_styles,
    new_figure,
    save,
    say_empty,
    spoken,
    style_panel,
)


def plot_training(
    log_history: Sequence[Mapping[str, float]],
    *,
    bound: float | None = None,
    energy_prefix: str = "energy/",
    accuracy_prefix: str = "eval_accuracy/",
    path: str | Path,
) -> Path:
    """Draw loss, mean energies, gradient norm and held-out accuracy against the training step.

    Args:
        log_history: `Trainer.state.log_history`: entries with `step` and some of `loss`,
            `grad_norm`, `<energy_prefix><kind>` and `<accuracy_prefix><kind>`.
        bound: least value of the loss, drawn as a line.
        energy_prefix: prefix of mean energies.
        accuracy_prefix: prefix of pairwise accuracies.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: no entry with a step and a loss.
    """
    loss = series(log_history, "loss")
    if not loss[0]:
        raise ValueError(
            f"none of {len(log_history)} log entries has both `step` and `loss`: "
            "pass `trainer.state.log_history` of a run that has logged"
        )
    energies = _by_kind(log_history, energy_prefix)
    accuracies = _by_kind(log_history, accuracy_prefix)
    norms = series(log_history, "grad_norm")
    return save(_training_figure(loss, norms, energies, accuracies, bound), path)


Series = tuple[list[float], list[float]]
"""Steps, and the value at each."""


def series(log_history: Sequence[Mapping[str, float]], key: str) -> Series:
    """Steps at which a value was logged, and the values."""
    entries = [entry for entry in log_history if key in entry and "step" in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]


def _by_kind(log_history: Sequence[Mapping[str, float]], prefix: str) -> dict[str, Series]:
    keys = dict.fromkeys(key for entry in log_history for key in entry if key.startswith(prefix))
    return {key.removeprefix(prefix): series(log_history, key) for key in keys}


def _training_figure(
    loss: Series,
    norms: Series,
    energies: Mapping[str, Series],
    accuracies: Mapping[str, Series],
    bound: float | None,
) -> Any:
    figure = new_figure(11.5, 7.4)
    line = LineStyle("#0072b2", "o")
    loss_panel, energy_panel, norm_panel, accuracy_panel = figure.subplots(2, 2).flat
    style_panel(loss_panel, title="Loss", xlabel="step", ylabel="contrastive loss")
    draw_series(loss_panel, *loss, line, "loss")
    if bound is not None:
        _mark(loss_panel, bound, "bound: nothing left to learn")
        loss_panel.margins(y=0.12)
    style_panel(energy_panel, title="Mean energy", xlabel="step", ylabel="energy (low = real)")
    _draw_kinds(energy_panel, energies, "no energies logged")
    style_panel(norm_panel, title="Gradient norm", xlabel="step", ylabel="norm")
    if norms[0]:
        draw_series(norm_panel, *norms, line, "gradient norm")
        norm_panel.set_ylim(bottom=0)
    else:
        say_empty(norm_panel, "no gradient norm logged")
    style_panel(
        accuracy_panel, title="Held-out pairwise accuracy", xlabel="step", ylabel="share of pairs"
    )
    _draw_kinds(accuracy_panel, accuracies, "no held-out accuracy logged")
    if accuracies:
        accuracy_panel.set_ylim(-0.03, 1.03)
        _mark(accuracy_panel, 0.5, "chance")
    _add_legend(figure, [*energies, *accuracies])
    return figure


def _draw_kinds(axes: Any, kinds: Mapping[str, Series], empty: str) -> None:
    if not kinds:
        say_empty(axes, empty)
    styles = line_styles(list(kinds))
    for kind, (steps, values) in kinds.items():
        draw_series(axes, steps, values, styles[kind], spoken(kind))


def _mark(axes: Any, level: float, text: str) -> None:
    """Dashed line across the panel with its name at the right end."""
    axes.axhline(level, color=FAINT, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.annotate(
        text,
        (1, level),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-3, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=INK,
    )


def _add_legend(figure: Any, names: Sequence[str]) -> None:
    known = [kind for kind in LINE_STYLES if kind in names]
    kinds = [*known, *(name for name in dict.fromkeys(names) if name not in LINE_STYLES)]
    if not kinds:
        figure.tight_layout(h_pad=2.0, w_pad=2.0)
        return
    handles = [
        figure.axes[0].plot([], [], color=colour, marker=marker, label=spoken(kind))[0]
        for kind, (colour, marker) in line_styles(kinds).items()
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=min(7, len(kinds)), frameon=False, fontsize=9
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1), h_pad=2.0, w_pad=2.0)
