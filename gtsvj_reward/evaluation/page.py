"""An evaluation as a page: `index.html` beside `result.json`."""

from collections.abc import Sequence
from pathlib import Path

from gtsvj_reward.annotations import Comparisons
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.evaluation.accuracies import CROSS_FITTED, METHODS
from gtsvj_reward.evaluation.align import ScoredComparisons, align
from gtsvj_reward.evaluation.disagreements import disagreement_cards
from gtsvj_reward.evaluation.pairs import Pairs
from gtsvj_reward.evaluation.report import (
    READING,
    VOTES,
    WIN_RATES,
    facts,
    interval_text,
    undefined_notes,
    vote_rows,
)
from gtsvj_reward.evaluation.result import Agreement, EvaluationResult
from gtsvj_reward.evaluation.scores import ASPECT_PREFIX, ScoreTable
from gtsvj_reward.metrics import accuracy_against_threshold
from gtsvj_reward.pages import (
    Axis,
    Markup,
    Plot,
    TableRow,
    card,
    figures,
    histogram,
    joined,
    strip,
    table as table_of,
    tag,
    write_page,
)
from gtsvj_reward.pages.axes import number
from gtsvj_reward.tables import percent

SHARES = Axis(low=0.0, high=1.0)
SHOWN = (CROSS_FITTED, "without_ties")
"""Methods in the first table; `result.md` has all."""
VOTE_PARTS = 10
"""Dots of a curve of votes."""


def write_evaluation(
    result: EvaluationResult,
    comparisons: Comparisons,
    table: ScoreTable,
    out: str | Path,
    *,
    videos: str | Path | None = None,
) -> Path:
    """Write `index.html`: agreement with its intervals, and the pairs that go most wrong.

    Args:
        result: from `evaluate_comparisons`.
        comparisons: its input.
        table: its input.
        out: folder for the page.
        videos: folder of the videos; those of the pairs are copied beside the page.

    Returns:
        The page.
    """
    columns = {item.dimension: item.column for item in result.dimensions}
    scored = align(comparisons, table, None, columns, True, result.settings)
    first = result.dimensions[-1] if scored.overall is None else _overall(result, scored.overall)
    body = [_figures(result, first), _agreement(result)]
    body += [*_votes(result, scored), *_by_generator(result)]
    body += [_scores(result, scored, column) for column in dict.fromkeys(columns.values())]
    curves = [*_win_rates(result.dimensions), *_thresholds(result.dimensions, scored)]
    if curves:
        body.append(tag("div", {"class": "two"}, *curves))
    notes = undefined_notes([*result.dimensions, *result.models, *result.aspects])
    if notes:
        said = tag("ul", {}, *(tag("li", {}, note) for note in notes))
        body.append(card(said, title="Undefined"))
    known = table.uncertainties(first.column)
    matches = match_videos(scored.videos(), table.videos, table.name)
    uncertainty = {name: known[own] for name, own in matches.items() if own in known}
    places = None if videos is None else Path(videos)
    body += disagreement_cards(scored, first, uncertainty, places, Path(out))
    lead = tag("span", {}, *(part for fact in facts(result) for part in (fact, tag("br"))))
    title = f"{result.scorer} on {result.data}"
    page = Path(out) / "index.html"
    return write_page(page, kind="Evaluation", title=title, lead=lead, body=joined(body))


def _overall(result: EvaluationResult, name: str) -> Agreement:
    return next(item for item in result.dimensions if item.dimension == name)


def _figures(result: EvaluationResult, first: Agreement) -> Markup:
    items = [("comparisons", f"{result.evaluated:,}"), ("videos", f"{result.videos:,}")]
    for name in SHOWN:
        found = first.accuracies.get(name)
        if found is not None:
            said = f"{first.dimension}, {METHODS[name]}"
            items.append((said, f"{percent(found.accuracy)}%"))
    if (votes := first.votes) is not None:
        said = f"{first.dimension}, votes for what scores higher, of at most {votes.ceiling:.0%}"
        items.append((said, f"{percent(votes.agreement)}%"))
    return figures(*items)


def _agreement(result: EvaluationResult) -> Markup:
    """A line for each label and method: the accuracy, how sure it is, and what is nothing."""
    rows: list[TableRow] = [("label", "column", "method", "", "accuracy", "interval", "pairs")]
    rows += [
        (item.dimension, item.column, METHODS[name], *cells)
        for item in result.dimensions
        for name in SHOWN
        if (cells := _accuracy_cells(item, name))
    ]
    rows += [
        (f"{item.dimension} by aspect", item.column.removeprefix(ASPECT_PREFIX), METHODS[name],
         *cells)
        for item in result.aspects
        for name in SHOWN[:1]
        if (cells := _accuracy_cells(item, name))
    ]  # fmt: skip
    legend = tag(
        "p",
        {"class": "legend"},
        tag("span", {"class": "l-dot"}, "accuracy"),
        tag("span", {"class": "l-spread"}, f"{result.settings.confidence:.0%} interval"),
        tag("span", {"class": "l-mark"}, "chance, and a constant score"),
    )
    title = "How often it agrees with people"
    return card(legend, table_of(rows, numbers=3), title=title, note=READING)


def _accuracy_cells(item: Agreement, name: str) -> list[str]:
    found = item.accuracies.get(name)
    if found is None:
        return []
    marks = [(found.chance, "chance"), (found.constant, "constant score")]
    drawn = strip(SHARES, found.accuracy, spread=found.interval, marks=marks)
    return [drawn, percent(found.accuracy), interval_text(name, found), str(found.pairs)]


def _votes(result: EvaluationResult, scored: ScoredComparisons) -> list[Markup]:
    """Agreement with shares of votes, and these shares where the scores predict which."""
    found = [(item, item.votes) for item in result.dimensions if item.votes is not None]
    if not found:
        return []
    head, *lines = vote_rows(result.dimensions)
    rows: list[TableRow] = [(head[0], "", *head[1:])]
    drawn = []
    for (item, votes), (name, *cells) in zip(found, lines, strict=True):
        marks = [(0.5, "random scores"), (votes.ceiling, "ceiling")]
        bar = strip(SHARES, votes.agreement, spread=votes.interval, marks=marks)
        rows.append((name, bar, *cells))
        if votes.scale is not None:
            pairs = scored.pairs(item.dimension, item.column)
            drawn.append(_vote_curve(item.dimension, pairs, votes.scale))
    two = [tag("div", {"class": "two"}, *drawn)] if drawn else []
    title = "Agreement with votes"
    return [card(table_of(rows, numbers=len(rows[0]) - 2), title=title, note=VOTES), *two]


def _vote_curve(dimension: str, pairs: Pairs, scale: float) -> Markup:
    """Shares of votes where scores predict them, in parts of about as many pairs each."""
    order = pairs.differences.argsort()
    plot = Plot(x=SHARES, y=SHARES, width=420, height=280)
    inside = [plot.grid(), plot.line([(0, 0), (1, 1)], "ideal")]
    for part in order.tensor_split(min(VOTE_PARTS, len(order))):
        weights = pairs.weights[part] / pairs.weights[part].sum()
        predicted = (weights * (pairs.differences[part] / scale).sigmoid()).sum().item()
        share = (weights * pairs.probabilities[part]).sum().item()
        title = f"{share:.0%} of the votes on {len(part)} pairs, {predicted:.0%} predicted"
        inside.append(plot.dot(predicted, share, radius=4.5, title=title))
    title = f"Share of votes where predicted: {dimension}"
    return card(plot.svg(title, *inside), title=title, note=f"Scale {scale:.4g}.")


def _by_generator(result: EvaluationResult) -> list[Markup]:
    rows: list[TableRow] = [("generator", "label", "", "accuracy", "interval", "pairs")]
    rows += [
        (item.model or "", item.dimension, *cells)
        for item in result.models
        if (cells := _accuracy_cells(item, CROSS_FITTED))
    ]
    if len(rows) == 1:
        return []
    note = f"A pair counts for both of its generators. {METHODS[CROSS_FITTED].capitalize()}."
    return [card(table_of(rows, numbers=3), title="By generator", note=note)]


def _scores(result: EvaluationResult, scored: ScoredComparisons, column: str) -> Markup:
    """How the scores of a column are spread, over all videos and by generator."""
    groups = scores_by_model(result, scored, column)
    values = [scored.scores[column][video] for video in scored.videos()]
    parts = [histogram(values, what=column)] if len(set(values)) > 1 else []
    if len(groups) > 1:
        axis = Axis.around(values)
        rows = [("generator", "", "mean", "lowest", "highest", "videos")]
        for name, own in groups.items():
            mean = sum(own) / len(own)
            drawn = strip(axis, mean, spread=(min(own), max(own)))
            ends = (f"{mean:.3f}", f"{min(own):.3f}", f"{max(own):.3f}")
            rows.append((name, drawn, *ends, str(len(own))))
        parts.append(table_of(rows, numbers=4))
    if not parts:
        parts = [tag("p", {}, f"All {len(values)} videos have the score {number(values[0])}.")]
    return card(*parts, title=f"Scores: {column}", note="Of the videos in the comparisons.")


def scores_by_model(
    result: EvaluationResult, scored: ScoredComparisons, column: str
) -> dict[str, list[float]]:
    """Scores of each generator's videos, best mean first; of all videos without generators."""
    scores = scored.scores[column]
    videos = scored.videos_by_model()
    models = [item.model for item in result.model_scores if item.column == column]
    if not models:
        return {"all videos": [scores[video] for video in scored.videos()]}
    return {model: [scores[video] for video in videos[model]] for model in models}


def _win_rates(items: Sequence[Agreement]) -> list[Markup]:
    """Predicted against observed shares of wins, where they are defined."""
    cards = []
    for item in items:
        if item.win_rates is None:
            continue
        plot = Plot(x=SHARES, y=SHARES, width=420, height=280)
        inside = [plot.grid(), plot.line([(0, 0), (1, 1)], "ideal")]
        for found in item.win_rates.bins:
            low, high = found.interval
            title = f"{found.observed:.0%} of {found.pairs} pairs, {found.predicted:.0%} predicted"
            inside.append(plot.line([(found.predicted, low), (found.predicted, high)]))
            inside.append(plot.dot(found.predicted, found.observed, radius=4.5, title=title))
        label = f"observed against predicted shares of wins, {item.dimension}"
        rates = item.win_rates
        note = f"Scale {rates.scale:.4g}, log loss {rates.log_loss:.4f}. {WIN_RATES}"
        title = f"Observed share of wins where predicted: {item.dimension}"
        cards.append(card(plot.svg(label, *inside), title=title, note=note))
    return cards


def _thresholds(items: Sequence[Agreement], scored: ScoredComparisons) -> list[Markup]:
    """Accuracy with ties at each threshold, where there are ties."""
    cards = []
    for item in items:
        if "with_ties" not in item.accuracies or not item.human_ties:
            continue
        pairs = scored.pairs(item.dimension, item.column)
        found = accuracy_against_threshold(pairs.differences, pairs.labels)
        thresholds, shares = (values.tolist() for values in found)
        ends = [*thresholds[1:], thresholds[-1]]
        steps = [
            point
            for start, end, share in zip(thresholds, ends, shares, strict=True)
            for point in ((start, share), (end, share))
        ]
        plot = Plot(x=Axis.around(thresholds, margin=0.02), y=SHARES, width=420, height=280)
        inside = [plot.grid(), plot.line(steps)]
        fitted = item.accuracies["with_ties"]
        inside += [
            plot.line([(plot.x.low, share), (plot.x.high, share)], "ideal")
            for share in {fitted.chance, fitted.constant}
        ]
        used = fitted.threshold or 0.0
        inside.append(plot.line([(used, 0.0), (used, 1.0)], "line other"))
        label = f"accuracy with ties against the threshold, {item.dimension}"
        note = "Dashed: random scores, and a constant score. Upright: the threshold in use."
        title = f"Accuracy by tie threshold: {item.dimension}"
        cards.append(card(plot.svg(label, *inside), title=title, note=note))
    return cards
