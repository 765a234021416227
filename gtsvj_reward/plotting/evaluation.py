"""How a scorer fares against people: tie thresholds, win rates, distributions of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtsvj_reward.plotting.canvas import (
    FAINT,
    INK,
    OTHER_STYLES,
    new_figure,
    save,
    style_panel,
)

DASHED = (0, (4, 3))
DOTTED = (0, (1, 2))
COLOUR = OTHER_STYLES[0].colour
MARK = OTHER_STYLES[1].colour
ACROSS = 3
"""Panels in a row."""


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """Accuracy with ties at every tie threshold that makes a difference."""

    thresholds: Sequence[float]
    """Ascending, in units of the score; differences up to it are predicted ties."""
    accuracies: Sequence[float]
    """Accuracy from each threshold to the next, 0..1."""
    fitted: float
    """The threshold in use."""
    constant: float
    """Accuracy of a scorer that gives every video the same score."""
    chance: float
    """Accuracy of random scores with a fitted threshold."""


@dataclass(frozen=True, kw_only=True)
class WinRateCurve:
    """Predicted against observed win rates; all of one length."""

    predicted: Sequence[float]
    """Mean predicted probability of each bin, 0..1."""
    observed: Sequence[float]
    """Share that was won in each bin, 0..1."""
    intervals: Sequence[tuple[float, float]]
    """Lower and upper end of each observed share."""
    pairs: Sequence[int]
    """Pairs in each bin."""


def plot_threshold_curves(curves: Mapping[str, ThresholdCurve], *, path: str | Path) -> Path:
    """Draw accuracy against the tie threshold, one panel for each curve.

    Args:
        curves: title -> curve; at least one.
        path: file to write; the suffix sets the format.

    Returns:
        The path written.

    Raises:
        ValueError: no curves, or one without points or with lists of unequal length.
        ImportError: matplotlib is not installed.
    """
    for title, curve in curves.items():
        _check_lengths(title, curve.thresholds, curve.accuracies)
        if not curve.thresholds:
            raise ValueError(f"the curve {title!r} has no thresholds")
    figure, panels = _panels(list(curves), "threshold curves")
    for panel, (title, curve) in zip(panels, curves.items(), strict=True):
        panel.step(curve.thresholds, curve.accuracies, where="post", color=COLOUR, label="accuracy")
        panel.axvline(curve.fitted, color=MARK, linewidth=1.2, label="threshold in use")
        panel.axhline(curve.chance, color=FAINT, linestyle=DASHED, label="random scores")
        panel.axhline(curve.constant, color=FAINT, linestyle=DOTTED, label="constant score")
        panel.set_ylim(0, 1)
        style_panel(panel, title=title, xlabel="tie threshold", ylabel="accuracy with ties")
    panels[0].legend(fontsize=8, frameon=False)
    return save(figure, path)


def plot_win_rates(curves: Mapping[str, WinRateCurve], *, path: str | Path) -> Path:
    """Draw observed against predicted win rates, one panel for each curve.

    Args:
        curves: title -> curve; at least one.
        path: file to write; the suffix sets the format.

    Returns:
        The path written.

    Raises:
        ValueError: no curves, or one with lists of unequal length.
        ImportError: matplotlib is not installed.
    """
    for title, curve in curves.items():
        _check_lengths(title, curve.predicted, curve.observed, curve.intervals, curve.pairs)
    figure, panels = _panels(list(curves), "win rates")
    for panel, (title, curve) in zip(panels, curves.items(), strict=True):
        style_panel(
            panel, title=title, xlabel="predicted share of wins", ylabel="observed share of wins"
        )
        panel.plot([0, 1], [0, 1], color=FAINT, linestyle=DASHED)
        _draw_win_rates(panel, curve)
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1.04)
    return save(figure, path)


def plot_score_histograms(
    scores: Mapping[str, Sequence[float]], *, title: str = "", path: str | Path
) -> Path:
    """Draw a histogram of scores for each group of videos, one below the other, on one axis.

    Args:
        scores: name -> scores of its videos; drawn in this order, with a line at the mean.
        title: above the first.
        path: file to write; the suffix sets the format.

    Returns:
        The path written.

    Raises:
        ValueError: no groups, or one without scores.
        ImportError: matplotlib is not installed.
    """
    empty = [name for name, values in scores.items() if not values]
    if not scores or empty:
        raise ValueError(f"expected groups of at least one score each, got empty: {empty or 'all'}")
    figure = new_figure(7.0, 1.2 + 0.8 * len(scores))
    panels = figure.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    low = min(min(values) for values in scores.values())
    high = max(max(values) for values in scores.values())
    bounds = (low, high) if low < high else (low - 0.5, high + 0.5)
    for panel, (name, values) in zip(panels, scores.items(), strict=True):
        panel.hist(values, bins=40, range=bounds, color=COLOUR)
        mean = sum(values) / len(values)
        panel.axvline(mean, color=MARK, linewidth=1.4)
        style_panel(panel)
        panel.set_yticks([])
        note = f"{name}: mean {mean:.3f}, {len(values)} videos"
        panel.set_title(note, loc="left", fontsize=9, color=INK, pad=2)
    panels[-1].set_xlabel("score (higher is better)", fontsize=10, color=INK)
    figure.suptitle(title, fontsize=11, color=INK)
    figure.tight_layout()
    return save(figure, path)


def _draw_win_rates(panel: Any, curve: WinRateCurve) -> None:
    below = [rate - low for rate, (low, _) in zip(curve.observed, curve.intervals, strict=True)]
    above = [high - rate for rate, (_, high) in zip(curve.observed, curve.intervals, strict=True)]
    panel.errorbar(
        curve.predicted,
        curve.observed,
        yerr=(below, above),
        color=COLOUR,
        marker="o",
        markersize=5,
        linewidth=1.4,
        capsize=2,
    )
    for x, (_, high), pairs in zip(curve.predicted, curve.intervals, curve.pairs, strict=True):
        panel.annotate(
            f"{pairs}",
            (x, high),
            textcoords="offset points",
            xytext=(0, 3),
            ha="center",
            fontsize=7,
            color=FAINT,
        )


def _panels(titles: Sequence[str], what: str) -> tuple[Any, list[Any]]:
    """A figure with one panel for each title."""
    if not titles:
        raise ValueError(f"no {what} to draw")
    rows, across = -(-len(titles) // ACROSS), min(ACROSS, len(titles))
    figure = new_figure(4.6 * across, 3.9 * rows)
    panels = list(figure.subplots(rows, across, squeeze=False).flat)
    for unused in panels[len(titles) :]:
        unused.remove()
    figure.set_layout_engine("tight")
    return figure, panels[: len(titles)]


def _check_lengths(title: str, *lists: Sequence[Any]) -> None:
    if len({len(values) for values in lists}) != 1:
        raise ValueError(
            f"the lists of {title!r} must be equally long, got {[len(values) for values in lists]}"
        )
