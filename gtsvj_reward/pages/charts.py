"""Charts of scores: how they are distributed, and how one runs over a clip."""

import math
from collections.abc import Sequence

from gtsvj_reward.pages.axes import Axis, Plot, number
from gtsvj_reward.pages.markup import Markup, joined, tag

MOST_BINS = 40


def histogram(
    values: Sequence[float], *, what: str, band: tuple[float, float] | None = None
) -> Markup:
    """How many clips have which score.

    Args:
        values: finite, of at least two different sizes; a histogram of fewer shows nothing.
        what: name of the values, e.g. "reward".
        band: a range to shade, such as the spread of training clips.

    Raises:
        ValueError: for values that are all equal.
    """
    if len(set(values)) < 2:
        raise ValueError(f"expected at least two different values, got {len(values)} equal ones")
    bins = min(MOST_BINS, max(6, 2 * math.ceil(math.sqrt(len(values)))))
    axis = Axis.around([*values, *(band or ())], margin=0.02)
    low, high = min(values), max(values)
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(bins * (value - low) / (high - low)))] += 1
    plot = Plot(x=axis, y=Axis(low=0, high=max(counts)), width=900, height=190, left=34, top=10)
    edges = [low + (high - low) * place / bins for place in range(bins + 1)]
    bars = [
        plot.bar(start, end, count, title=f"{count} from {number(start)} to {number(end)}")
        for start, end, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]
    shade = [] if band is None else [plot.band(*band, of="x")]
    whole = [tick for tick in plot.y.ticks(3) if tick == int(tick)]
    names = [plot.text(4, plot.down(tick) + 3.5, number(tick)) for tick in whole if tick]
    label = f"{len(values)} values of {what} from {number(low)} to {number(high)}"
    return plot.svg(label, *shade, plot.grid(x_most=9, y_most=0), *names, *bars)


def trajectory(
    values: Sequence[float],
    spans: Sequence[tuple[float, float]],
    *,
    axis: Axis,
    what: str,
    band: tuple[float, float] | None = None,
) -> Markup:
    """The score of each step against time; the page moves a line in it as the clip plays.

    Args:
        values: one per step.
        spans: of each step, in seconds.
        axis: of the values, the same for all clips of a page.
        what: name of the values.
        band: a range of values to shade.

    Raises:
        ValueError: for no steps, or another number of spans.
    """
    if not values or len(values) != len(spans):
        raise ValueError(f"expected one span for each step, got {len(values)} and {len(spans)}")
    plot = Plot(x=Axis(low=0, high=spans[-1][1]), y=axis)
    middles = [(start + end) / 2 for start, end in spans]
    held = [
        plot.rule(plot.across(start), plot.down(value), plot.across(end), plot.down(value), "held")
        for value, (start, end) in zip(values, spans, strict=True)
    ]
    dots = [
        plot.dot(middle, value, title=f"{start:.2f} to {end:.2f} s: {value:+.3f}")
        for middle, value, (start, end) in zip(middles, values, spans, strict=True)
    ]
    shade = [] if band is None else [plot.band(*band, of="y")]
    floor = plot.height - plot.bottom
    head = plot.rule(plot.left, plot.top, plot.left, floor, "head")
    return plot.svg(
        f"{what} over time, {min(values):.3f} to {max(values):.3f}",
        *shade,
        plot.grid(x_unit=" s"),
        *held,
        plot.line(list(zip(middles, values, strict=True))),
        *dots,
        head,
        attributes={
            "class": "plot trajectory",
            "data-left": plot.left,
            "data-right": plot.width - plot.right,
            "data-seconds": f"{spans[-1][1]:.6g}",
        },
    )


def strip(
    axis: Axis,
    value: float,
    *,
    spread: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    band: tuple[float, float] | None = None,
) -> Markup:
    """A value as a dot on a line, with how far it may be off.

    Args:
        axis: from one end of the line to the other.
        value: of the dot.
        spread: ends of the bar through the dot.
        marks: (value, label) of other ticks on the line.
        band: a range to shade.
    """
    parts: list[Markup] = []
    for ends, css in ((band, "shade"), (spread, "spread")):
        if ends is not None:
            start, end = (100 * axis.share(end) for end in ends)
            style = f"left:{start:.2f}%;width:{end - start:.2f}%"
            parts.append(tag("i", {"class": css, "style": style}))
    parts += [
        tag("i", {"class": "mark", "style": f"left:{100 * axis.share(place):.2f}%", "title": name})
        for place, name in marks
    ]
    parts.append(tag("i", {"class": "at", "style": f"left:{100 * axis.share(value):.2f}%"}))
    return tag("span", {"class": "strip"}, joined(parts))
