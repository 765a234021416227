"""Two small charts for the demo's page, as SVG that takes its colours from the page."""

import html
import math

from gtsvj_reward.demo.report import percent
from gtsvj_reward.demo.story import Story
from gtsvj_reward.toy.measures import colour_unrest

WIDTH = 720
LEFT = 230
"""Room for the names of the prompts."""
ROW = 30


def gain_bars(before: float, after: float) -> str:
    """Mean shares of the possible gain as two bars; a negative one goes left from a line at 0."""
    left, width = 88, 220
    low = max(-1.0, min(0.0, before, after))

    def place(gain: float) -> float:
        return left + width * (min(1.0, max(low, gain)) - low) / (1 - low)

    bars = []
    for number, (name, gain) in enumerate((("no labels", before), ("after ratings", after))):
        top, start, end = 6 + 34 * number, *sorted((place(0), place(gain)))
        bars.append(
            f'<text class="name" x="0" y="{top + 17}">{name}</text>'
            f'<rect class="rail" x="{left}" y="{top}" width="{width}" height="26"/>'
            f'<rect class="bar{number}" x="{start:.1f}" y="{top}" width="{end - start:.1f}" '
            f'height="26"/><text class="value" x="318" y="{top + 19}">{percent(gain)}</text>'
        )
    zero = f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="0" y2="72"/>'
    label = "share of the possible gain in steadiness, without labels and after"
    return svg("".join(bars) + zero * (low < 0), 360, 72, label)


def unrest_dots(story: Story) -> str:
    """Each candidate as a dot, prompt by prompt: steadier to the right, picks marked."""
    lot = story.candidates
    logs = [math.log(value) for value in colour_unrest(lot.frames).clamp_min(1e-2).tolist()]
    low, high = min(logs), max(logs)
    span = max(high - low, 1e-9)

    def place(value: float) -> float:
        return LEFT + 15 + (WIDTH - LEFT - 30) * (high - value) / span

    parts = []
    for number, prompt in enumerate(lot.prompts):
        middle, values = 34 + ROW * number, logs[lot.rows(number)]
        dots = "".join(f'<circle class="dot" cx="{place(v):.1f}" cy="{middle}" r="4"/>'
                       for v in values)  # fmt: skip
        before = place(values[story.before[number].best])
        after = place(values[story.after[number].best])
        parts.append(
            f'<text class="name" x="0" y="{middle + 5}">{html.escape(prompt)}</text>'
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH}" y1="{middle}" y2="{middle}"/>{dots}'
            f'<circle class="ring" cx="{before:.1f}" cy="{middle}" r="9"/>'
            f'<circle class="pick" cx="{after:.1f}" cy="{middle}" r="6"/>'
        )
    ends = (
        f'<text class="end" x="{LEFT}" y="12">moves by {math.exp(high):.0f} grey levels</text>'
        f'<text class="end" x="{WIDTH}" y="12" text-anchor="end">{math.exp(low):.1f}: steady</text>'
    )
    height = 34 + ROW * len(lot.prompts)
    return svg(ends + "".join(parts), WIDTH, height, "steadiness of all candidates and the picks")


def svg(inside: str, width: int, height: int, label: str) -> str:
    """A drawing that scales with the page."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    )
