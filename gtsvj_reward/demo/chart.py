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
    """Mean shares of the possible gain as two bars; a negative one has no length."""
    bars = []
    for number, (name, gain) in enumerate((("no labels", before), ("after ratings", after))):
        top, length = 6 + 44 * number, 500 * min(1.0, max(0.0, gain))
        bars.append(
            f'<text class="name" x="0" y="{top + 22}">{name}</text>'
            f'<rect class="rail" x="120" y="{top}" width="500" height="32" rx="6"/>'
            f'<rect class="bar{number}" x="120" y="{top}" width="{length:.1f}" height="32" rx="6"/>'
            f'<text class="value" x="635" y="{top + 23}">{percent(gain)}</text>'
        )
    return svg("".join(bars), 720, 88, "share of the possible gain, without labels and after")


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
