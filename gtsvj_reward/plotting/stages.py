"""One page on the training run of an aspect or preference judge."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gtsvj_reward.plotting.canvas import (
    INK,
    OTHER_STYLES,
    draw_series,
    new_figure,
    save,
    say_empty,
    style_panel,
)
from gtsvj_reward.plotting.training import series

AGREEMENT = {
    "eval_spearman": "Spearman, mean of aspects",
    "eval_pearson": "Pearson, mean of aspects",
    "eval_accuracy_without_ties": "accuracy without ties",
    "eval_cross_fitted_with_ties": "accuracy with ties, cross-fitted",
    "eval_accuracy_with_ties": "accuracy with ties, in-sample",
}
"""Logged name -> what the panel of held-out agreement calls it."""


def plot_stage(log_history: Sequence[Mapping[str, float]], *, path: str | Path) -> Path:
    """Draw losses, gradient norm, held-out agreement, and the last correlation of each aspect.

    Args:
        log_history: what `Trainer.state.log_history` of an `AspectTrainer` or `PreferenceTrainer`
            holds.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: no entry with a step and a loss.
    """
    if not series(log_history, "loss")[0]:
        raise ValueError(
            f"none of {len(log_history)} log entries has both `step` and `loss`: "
            "pass `trainer.state.log_history` of a run that has logged"
        )
    figure = new_figure(11.5, 7.4)
    loss, agreement, norm, last = figure.subplots(2, 2).flat
    style_panel(loss, title="Loss", xlabel="step", ylabel="loss")
    _draw(loss, log_history, {"loss": "training", "eval_loss": "held out"})
    style_panel(agreement, title="Held-out agreement with people", xlabel="step")
    _draw(agreement, log_history, AGREEMENT)
    style_panel(norm, title="Gradient norm", xlabel="step", ylabel="norm")
    _draw(norm, log_history, {"grad_norm": "gradient norm"})
    correlations = _last(log_history, "eval_spearman/")
    if correlations:
        _draw_bars(last, correlations)
    else:
        style_panel(last, title="Training pairs in the right order", xlabel="step")
        _draw(last, log_history, {"accuracy": "share of untied pairs"})
    figure.tight_layout(h_pad=2.0, w_pad=2.0)
    return save(figure, path)


def _draw(axes: Any, log_history: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> None:
    """Every series that was logged, with a legend; a note if there is none."""
    drawn = 0
    for style, (key, label) in zip(OTHER_STYLES, names.items(), strict=False):
        steps, values = series(log_history, key)
        if steps:
            draw_series(axes, steps, values, style, label)
            drawn += 1
    if drawn:
        axes.legend(frameon=False, fontsize=9)
    else:
        say_empty(axes, "nothing logged")


def _last(log_history: Sequence[Mapping[str, float]], prefix: str) -> dict[str, float]:
    """The last value of each name with the prefix, under the rest of the name."""
    values: dict[str, float] = {}
    for entry in log_history:
        values.update({k.removeprefix(prefix): v for k, v in entry.items() if k.startswith(prefix)})
    return values


def _draw_bars(axes: Any, values: Mapping[str, float]) -> None:
    style_panel(axes, title="Held-out Spearman correlation at the end", xlabel="correlation")
    names = list(values)[::-1]
    axes.barh(names, [values[name] for name in names], color=OTHER_STYLES[0].colour)
    axes.axvline(0, color=INK, linewidth=1.0)
    axes.set_xlim(min(-0.1, *values.values()), 1)
    axes.tick_params(axis="y", labelsize=6 if len(names) > 12 else 9)
