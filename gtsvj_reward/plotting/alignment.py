"""Curves of an alignment run: the trained reward and the eval metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gtsvj_reward.plotting.canvas import (
    LineStyle,
    add_axes,
    draw_series,
    line_styles,
    new_figure,
    save,
    style_panel,
)
from gtsvj_reward.plotting.training import Series, series

HELD = ("kl", "drift", "clip_fraction")
"""Measures of the distance from the reference, in order of preference."""


def plot_alignment(log_history: Sequence[Mapping[str, float]], *, path: str | Path) -> Path:
    """Draw proxy, eval metrics and distance to the reference against the iteration.

    Args:
        log_history: entries with `iteration` and some of `proxy`, `eval/<name>`, `reward`, `kl`,
            `drift` and `clip_fraction`, as `AlignmentRun` logs them.
        path: file to write; the suffix sets the format.

    Raises:
        ValueError: no entry with an iteration and a proxy.
    """
    entries = [{**entry, "step": entry["iteration"]} for entry in log_history]
    proxy = series(entries, "proxy")
    if not proxy[0]:
        raise ValueError(
            f"none of {len(entries)} log entries has `iteration` and `proxy`: pass the journal of "
            "a run that has had a checkup"
        )
    names = dict.fromkeys(key for entry in entries for key in entry if key.startswith("eval/"))
    watched = {name.removeprefix("eval/"): series(entries, name) for name in names}
    held = {name: series(entries, name) for name in HELD if any(name in e for e in entries)}
    panels = [("trained on", {"reward": proxy})]
    panels += [(f"only watched: {name}", {name: values}) for name, values in watched.items()]
    if held:
        panels.append(("distance to the reference", held))
    figure = new_figure(3.4 * len(panels) + 0.4, 3.0)
    for place, (title, lines) in enumerate(panels):
        axes = add_axes(figure, 0.7 + 3.4 * place, 0.6, 2.6, 1.95)
        style_panel(axes, title=title, xlabel="iteration")
        draw_lines(axes, lines)
    return save(figure, path)


def draw_lines(axes: object, lines: Mapping[str, Series]) -> None:
    """One line per name, with a legend if there are several."""
    styles: dict[str, LineStyle] = line_styles(list(lines))
    for name, (steps, values) in lines.items():
        draw_series(axes, steps, values, styles[name], name)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)  # type: ignore[attr-defined]
