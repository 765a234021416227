"""The look that all plots share, and the only place where figures are made and saved.

Figures are built as objects, without `pyplot` state or changes of backend and settings, so drawing
from a server, a notebook or a training loop does not affect the caller.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

INK = "#222222"
FAINT = "#8a8a8a"
PANEL = "#f6f6f4"


class LineStyle(NamedTuple):
    """Style of one kind of clip: colour and marker, so that plots are readable without colour."""

    colour: str
    marker: str


# The Okabe-Ito colours, which stay apart under the common colour blindnesses.
LINE_STYLES: dict[str, LineStyle] = {
    "real": LineStyle(INK, "o"),
    "generated": LineStyle("#d55e00", "s"),
    "temporal_slice_swap": LineStyle("#0072b2", "^"),
    "noisy_segment": LineStyle("#56b4e9", "D"),
    "frame_shuffle": LineStyle("#009e73", "v"),
    "frame_drop": LineStyle("#e69f00", "P"),
    "patch_swap": LineStyle("#cc79a7", "X"),
}
"""Kind of clip -> its style, the same in every plot."""
OTHER_STYLES = [
    LineStyle("#0072b2", "o"),
    LineStyle("#d55e00", "s"),
    LineStyle("#009e73", "^"),
    LineStyle("#cc79a7", "D"),
    LineStyle("#e69f00", "v"),
    LineStyle("#56b4e9", "P"),
]
"""Styles of names that are not a kind of clip, in order of appearance."""


def line_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """One style for each name: that of its kind, else the next of `OTHER_STYLES`."""
    others = [name for name in names if name not in LINE_STYLES]
    free = {name: OTHER_STYLES[i % len(OTHER_STYLES)] for i, name in enumerate(others)}
    return {name: LINE_STYLES.get(name) or free[name] for name in names}


def spoken(name: str) -> str:
    """A kind's name as words."""
    return name.replace("_", " ")


def check_matplotlib() -> None:
    """Check before long work that its result can be plotted."""
    new_figure(1, 1)


def new_figure(width: float, height: float) -> Any:
    """Empty matplotlib figure of that size in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'plots need matplotlib, which is not installed: pip install "gtsvj-reward[plot]"'
        ) from error
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Any, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place given in inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def style_panel(axes: Any, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Quiet frame, light grid, labels."""
    axes.set_facecolor(PANEL)
    axes.grid(True, color="white", linewidth=1.2)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.set_ylabel(ylabel, fontsize=10, color=INK)
    if xlabel == "step":
        axes.xaxis.get_major_locator().set_params(integer=True)


def draw_series(
    axes: Any, steps: Sequence[float], values: Sequence[float], style: LineStyle, label: str
) -> None:
    """A line over training steps with about eight markers; long ones also as a running mean."""
    window = len(values) // 16
    if window >= 3:
        axes.plot(steps, values, color=style.colour, linewidth=0.7, alpha=0.22)
        values = _running_mean(values, window)
    axes.plot(
        steps,
        values,
        color=style.colour,
        marker=style.marker,
        markevery=max(1, len(values) // 8),
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        linewidth=1.7,
        label=label,
    )


def say_empty(axes: Any, text: str) -> None:
    """Write in the middle of an empty panel why it is empty."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=10
    )
    axes.set_xticks([])
    axes.set_yticks([])


def save(figure: Any, path: str | Path) -> Path:
    """Write the figure in the format that the path's suffix names, e.g. `.png`, `.svg`, `.pdf`.

    Folders that are missing are made.

    Returns:
        The path.
    """
    from matplotlib.text import Text

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Names of clips and scorers are not formulas, even between dollar signs.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    figure.savefig(path)
    return Path(path)


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over the entries within half a window, fewer at the ends."""
    reach = window // 2
    parts = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]
