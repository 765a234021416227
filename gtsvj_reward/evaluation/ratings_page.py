"""An evaluation of ratings as a page: `index.html` beside `ratings.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from gtsvj_reward.annotations import Ratings
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.evaluation.disagreements import MOST, cards_with_tools, copied
from gtsvj_reward.evaluation.ratings import AspectResult, RatingsResult, ratings_facts
from gtsvj_reward.evaluation.scores import ScoreTable
from gtsvj_reward.metrics.correlation import average_ranks
from gtsvj_reward.pages import (
    Axis,
    Markup,
    TableRow,
    card,
    figures,
    histogram,
    joined,
    score_line,
    strip,
    table as table_of,
    tag,
    video,
    write_page,
)
from gtsvj_reward.pages.axes import number

CORRELATION = Axis(low=-1.0, high=1.0)
LEVELS = 7
"""More different ratings than this are put together in as many groups."""

READING = (
    "Rank correlation of scores with ratings: 1 is the same order, 0 none, -1 the reverse. The "
    "mean error is that of scores on the raters' scale; read it beside that of the best constant."
)

NOTE = (
    "Of each aspect, the clips whose place among all scores is farthest from their place among all "
    "ratings."
)
KEYS = ("distance of places", "score", "rating", "name")
"""What these cards are sorted by."""


@dataclass(frozen=True)
class _Rated:
    """A video with a rating of an aspect and a score."""

    video: str
    rating: float
    score: float
    uncertainty: float | None


def write_ratings(
    result: RatingsResult,
    ratings: Ratings,
    table: ScoreTable,
    out: str | Path,
    *,
    videos: str | Path | None = None,
) -> Path:
    """Write `index.html`: how far each aspect orders clips as people did, and where it does not.

    Args:
        result: what `evaluate_ratings` returned.
        ratings: what it was given.
        table: likewise.
        out: folder for the page.
        videos: folder of the videos, of which those that are shown are copied beside the page.

    Returns:
        The page.
    """
    body = [_figures(result), _agreement(result)]
    matches = match_videos(ratings.videos(), table.videos, table.name)
    places = None if videos is None else Path(videos)
    cards: list[Markup] = []
    for item in result.aspects:
        scores, off = table.scores(item.column), table.uncertainties(item.column)
        rows = [
            _Rated(row.video, row.scores[item.aspect], scores[own], off.get(own))
            for row in ratings.rows
            if item.aspect in row.scores and row.video not in result.missing_videos
            for own in (matches[row.video],)
        ]
        body += _spread(item, rows)
        cards += _disagreements(item, rows, places, Path(out))
    if cards:
        names = [item.aspect for item in result.aspects]
        body += cards_with_tools(cards, KEYS, note=NOTE, groups=names, group="Aspect")
    lead = tag("span", {}, *(part for fact in ratings_facts(result) for part in (fact, tag("br"))))
    title = f"{result.scorer} on {result.data}"
    page = Path(out) / "index.html"
    return write_page(page, kind="Evaluation", title=title, lead=lead, body=joined(body))


def _figures(result: RatingsResult) -> Markup:
    items = [("ratings", f"{result.evaluated:,}"), ("aspects", f"{len(result.aspects)}")]
    known = [item.spearman for item in result.aspects if item.spearman is not None]
    if known:
        items += [
            ("mean rank correlation", f"{fmean(known):+.2f}"),
            ("worst", f"{min(known):+.2f}"),
        ]
    return figures(*items)


def _agreement(result: RatingsResult) -> Markup:
    """A line for each aspect: the correlation, how sure it is, and the error."""
    head = ("aspect", "column", "", "rank correlation", "interval", "linear", "mean error",
            "best constant", "ratings")  # fmt: skip
    rows: list[TableRow] = [head]
    for item in result.aspects:
        drawn: str = "undefined"
        if item.spearman is not None:
            drawn = strip(CORRELATION, item.spearman, spread=item.interval, marks=[(0.0, "none")])
        ends = item.interval
        cells = ["undefined" if item.spearman is None else f"{item.spearman:.3f}"]
        cells += ["undefined" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"]
        cells += ["undefined" if item.pearson is None else f"{item.pearson:.3f}"]
        cells += [f"{item.mean_error:.3f}", f"{item.constant_error:.3f}", str(item.ratings)]
        rows.append((item.aspect, item.column, drawn, *cells))
    legend = tag(
        "p",
        {"class": "legend"},
        tag("span", {"class": "l-dot"}, "rank correlation, -1 to 1"),
        tag("span", {"class": "l-spread"}, f"{result.settings.confidence:.0%} interval"),
        tag("span", {"class": "l-mark"}, "none"),
    )
    title = "How far it orders clips as people did"
    return card(legend, table_of(rows, numbers=6), title=title, note=READING)


def _spread(item: AspectResult, rows: Sequence[_Rated]) -> list[Markup]:
    """How scores are spread, and which ones clips of each rating have."""
    values = [row.score for row in rows]
    if len(set(values)) < 2:
        return []
    parts = [histogram(values, what=item.column)]
    groups = _levels(rows)
    if len(groups) > 1:
        axis = Axis.around(values)
        lines: list[TableRow] = [("rating", "", "mean score", "lowest", "highest", "clips")]
        for name, own in groups.items():
            mean, ends = fmean(own), (min(own), max(own))
            drawn = strip(axis, mean, spread=ends)
            lines.append(
                (name, drawn, f"{mean:.3f}", *(f"{end:.3f}" for end in ends), f"{len(own)}")
            )
        parts.append(table_of(lines, numbers=4))
    note = "Scores of all rated clips, and of those with each rating: means should rise with it."
    return [card(*parts, title=f"{item.aspect}: scores in {item.column}", note=note)]


def _levels(rows: Sequence[_Rated]) -> dict[str, list[float]]:
    """Scores by rating, lowest first; many different ratings in groups of about equal size."""
    ordered = sorted(rows, key=lambda row: row.rating)
    found: dict[str, list[float]] = {}
    if len({row.rating for row in ordered}) <= LEVELS:
        for row in ordered:
            found.setdefault(number(row.rating), []).append(row.score)
        return found
    for place in range(LEVELS):
        part = ordered[place * len(rows) // LEVELS : (place + 1) * len(rows) // LEVELS]
        name = f"{number(part[0].rating)} to {number(part[-1].rating)}"
        found.setdefault(name, []).extend(row.score for row in part)
    return found


def _disagreements(
    item: AspectResult, rows: Sequence[_Rated], videos: Path | None, out: Path
) -> list[Markup]:
    """The clips whose places among the scores and among the ratings are farthest apart."""
    if item.spearman is None:
        return []
    pairs = torch.tensor([(row.rating, row.score) for row in rows], dtype=torch.float64)
    places = [(average_ranks(pairs[:, side]) - 0.5) / len(rows) for side in (0, 1)]
    gaps = (places[1] - places[0]).tolist()
    worst = sorted(range(len(rows)), key=lambda index: -abs(gaps[index]))[:MOST]
    chosen = [index for index in worst if gaps[index]]
    if not chosen:
        return []
    folder = out / "videos"
    names = [rows[index].video for index in chosen]
    files = copied(names, videos, folder) if videos is not None else {}
    axes = Axis.around(row.rating for row in rows), Axis.around(row.score for row in rows)
    return [_card(item.aspect, rows[index], gaps[index], files, axes) for index in chosen]


def _card(
    aspect: str, row: _Rated, gap: float, files: Mapping[str, str], axes: tuple[Axis, Axis]
) -> Markup:
    side = "higher" if gap > 0 else "lower"
    lines = [
        score_line(row.video, row.score, axes[1], uncertainty=row.uncertainty),
        tag("p", {"class": "now"}, f"{aspect}: scored {side} than people rated it"),
        strip(axes[0], row.rating),
        tag("p", {"class": "now"}, f"rated {number(row.rating)}"),
    ]
    screen = []
    if row.video in files:
        screen = [tag("div", {"class": "screen"}, video(files[row.video], label=row.video))]
    attributes = {
        "class": "clip",
        "data-values": json.dumps([abs(gap), row.score, row.rating, row.video]),
        "data-text": f"{row.video} {aspect}",
        "data-group": aspect,
    }
    return tag("article", attributes, *screen, tag("div", {"class": "about"}, *lines))
