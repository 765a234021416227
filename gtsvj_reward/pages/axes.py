"""Axes with readable ticks, and a drawing area in SVG that takes its colours from the page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gtsvj_reward.pages.markup import Attributes, Markup, joined, tag


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values; `low` < `high`."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], *, margin: float = 0.06) -> "Axis":
        """The range of values with room at both ends.

        Args:
            values: at least one.
            margin: share of the range that is added at each end.
        """
        known = list(values)
        low, high = min(known), max(known)
        room = margin * (high - low) or max(abs(high), 1.0) * 0.5
        return cls(low=low - room, high=high + room)

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end; at an end if beyond it."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, most: int = 5) -> list[float]:
        """At most `count` round numbers inside, evenly spaced."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / most))
        for factor in (1, 2, 5, 10):
            first = math.ceil(self.low / (step * factor))
            last = math.floor(self.high / (step * factor))
            if last - first + 1 <= most:
                break
        return [step * factor * number for number in range(first, last + 1)]


def number(value: float) -> str:
    """A tick as text: no digits of rounding."""
    return f"{value:.4g}"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing area with axes; sizes in units of the picture, which scales with the page."""

    x: Axis
    y: Axis
    width: int = 340
    height: int = 132
    left: int = 38
    right: int = 8
    top: int = 8
    bottom: int = 20

    def across(self, value: float) -> float:
        """Horizontal place of a value of `x`."""
        return round(self.left + (self.width - self.left - self.right) * self.x.share(value), 2)

    def down(self, value: float) -> float:
        """Vertical place of a value of `y`."""
        inside = self.height - self.top - self.bottom
        return round(self.top + inside * (1 - self.y.share(value)), 2)

    def grid(self, *, x_unit: str = "", x_most: int = 5, y_most: int = 4) -> Markup:
        """Lines and numbers of both axes.

        Args:
            x_unit: after the last number below.
            x_most: numbers below, at most.
            y_most: numbers at the left, at most; 0 for none.
        """
        parts: list[Markup] = []
        for value in self.y.ticks(y_most) if y_most else []:
            place = self.down(value)
            parts.append(self.rule(self.left, place, self.width - self.right, place, "grid"))
            at = {"x": self.left - 6, "y": place + 3.5, "class": "tick", "text-anchor": "end"}
            parts.append(tag("text", at, number(value)))
        floor = self.height - self.bottom
        parts.append(self.rule(self.left, floor, self.width - self.right, floor, "floor"))
        ticks = self.x.ticks(x_most)
        for value in ticks:
            text = number(value) + (x_unit if value == ticks[-1] else "")
            at = {"x": self.across(value), "y": floor + 14, "class": "tick"}
            parts.append(tag("text", {**at, "text-anchor": "middle"}, text))
        return joined(parts)

    def band(self, low: float, high: float, *, of: str, title: str = "") -> Markup:
        """Shade the values from `low` to `high` of the axis `of`, "x" or "y"."""
        box: Attributes
        if of == "y":
            up, down = self.down(high), self.down(low)
            box = {"x": self.left, "y": up, "width": self.width - self.left - self.right,
                   "height": round(down - up, 2)}  # fmt: skip
        else:
            start, end = self.across(low), self.across(high)
            box = {"x": start, "y": self.top, "width": round(end - start, 2),
                   "height": self.height - self.top - self.bottom}  # fmt: skip
        return _titled("rect", {**box, "class": "band"}, title)

    def line(self, points: Sequence[tuple[float, float]], css: str = "line") -> Markup:
        """A line through points."""
        places = " ".join(f"{self.across(x):g},{self.down(y):g}" for x, y in points)
        return tag("polyline", {"points": places, "class": css})

    def dot(
        self, x: float, y: float, css: str = "dot", *, radius: float = 3.2, title: str = ""
    ) -> Markup:
        """A point, with what is shown when it is pointed at."""
        at = {"cx": self.across(x), "cy": self.down(y), "r": radius, "class": css}
        return _titled("circle", at, title)

    def bar(self, start: float, end: float, value: float, *, title: str = "") -> Markup:
        """A bar from the floor to a value."""
        left, right, top = self.across(start), self.across(end), self.down(value)
        box = {"x": left + 0.5, "y": top, "width": round(max(0.5, right - left - 1), 2),
               "height": round(self.height - self.bottom - top, 2), "class": "bar"}  # fmt: skip
        return _titled("rect", box, title)

    def rule(self, x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
        """A straight line between places of the picture."""
        return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": css})

    def text(self, x: float, y: float, said: str, css: str = "tick") -> Markup:
        """Text at a place of the picture."""
        return tag("text", {"x": x, "y": y, "class": css}, said)

    def svg(self, label: str, *inside: str, attributes: Attributes | None = None) -> Markup:
        """The picture; `label` describes it for screen readers."""
        own: Attributes = {"viewBox": f"0 0 {self.width} {self.height}", "role": "img",
                           "aria-label": label, "class": "plot"}  # fmt: skip
        return tag("svg", {**own, **(attributes or {})}, *inside)


def _titled(name: str, attributes: Attributes, title: str) -> Markup:
    """A shape with what is shown when it is pointed at."""
    if not title:
        return tag(name, attributes)
    shape = tag(name, attributes)
    return Markup(f"{shape.removesuffix('/>')}>{tag('title', {}, title)}</{name}>")
