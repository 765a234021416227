"""One scorer against one file of ratings: whether its aspects order clips as people did."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from gtsvj_reward.annotations import Rating, Ratings
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.evaluation.result import EvaluationSettings
from gtsvj_reward.evaluation.scores import ASPECT_PREFIX, ScoreTable, named
from gtsvj_reward.metrics import bootstrap_interval, pearson, spearman
from gtsvj_reward.tables import markdown_table, text_table


@dataclass(frozen=True, kw_only=True)
class AspectResult:
    """One aspect: scores against ratings."""

    aspect: str
    """Its name in the ratings."""
    column: str
    """Of the table of scores."""
    ratings: int
    """Ratings of videos with a score."""
    groups: int
    """Groups (or prompts, or videos) that they come from."""
    spearman: float | None
    """Rank correlation, -1..1; None: undefined."""
    interval: tuple[float, float] | None
    """Of it, by a bootstrap of whole groups; None: undefined."""
    pearson: float | None
    """Linear correlation; None: undefined."""
    mean_error: float
    """Mean of |score - rating|, for scores on the raters' scale."""
    constant_error: float
    """Error of the best constant: the mean of |rating - median|."""
    undefined: str | None
    """Why a correlation or its interval is None."""


@dataclass(frozen=True, kw_only=True)
class RatingsResult:
    """All numbers of one scorer on one file of ratings; stored as `ratings.json`."""

    data: str
    """Name of the ratings."""
    scorer: str
    """Name of the scorer."""
    rows: int
    """Rows of the file."""
    evaluated: int
    """Rows whose video has scores."""
    missing_videos: tuple[str, ...]
    """Videos without a score."""
    left_out_aspects: tuple[str, ...]
    """Aspects of the file that the table has no column for."""
    settings: EvaluationSettings
    """Resamples, confidence and seed of the intervals."""
    aspects: tuple[AspectResult, ...]
    """In the order of the file."""
    notes: tuple[str, ...] = ()
    """Further notes."""

    def to_json(self) -> str:
        """The text of `ratings.json`."""
        return json.dumps(asdict(self), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def evaluate_ratings(
    ratings: Ratings,
    table: ScoreTable,
    *,
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    settings: EvaluationSettings | None = None,
    notes: Sequence[str] = (),
) -> RatingsResult:
    """Measure how well scores of aspects agree with ratings.

    Args:
        ratings: people's ratings.
        table: the scores.
        columns: aspect -> its column; `aspect:<name>`, else `<name>` by default. Aspects without
            one are left out, and named in the result.
        allow_missing: leave out ratings of videos without a score, and record it.
        settings: resamples, confidence and seed.
        notes: further notes for the result.

    Raises:
        ValueError: for unknown aspects or columns, no column at all, or videos without a score
            (unless allowed).
    """
    settings, columns = settings or EvaluationSettings(), columns or {}
    chosen = _columns(ratings, table, columns)
    scores = {column: table.scores(column) for column in chosen.values()}
    matches = match_videos(ratings.videos(), table.videos, table.name)
    missing = [
        video
        for video in ratings.videos()
        if any(matches.get(video) not in known for known in scores.values())
    ]
    if missing and not allow_missing:
        raise ValueError(
            f"{len(missing)} of {len(ratings.videos())} videos of {ratings.name} have no score in "
            f"{table.name}: {named(missing)}. Score them, or evaluate the rest with "
            "--allow_missing_videos (`allow_missing`)"
        )
    rows = [row for row in ratings.rows if row.video not in set(missing)]
    if not rows:
        raise ValueError(f"none of the videos of {ratings.name} has a score in {table.name}")
    return RatingsResult(
        data=ratings.name,
        scorer=table.name,
        rows=len(ratings.rows),
        evaluated=len(rows),
        missing_videos=tuple(missing),
        left_out_aspects=tuple(name for name in ratings.aspects if name not in chosen),
        settings=settings,
        aspects=tuple(
            _aspect(aspect, column, rows, scores[column], matches, settings)
            for aspect, column in chosen.items()
        ),
        notes=tuple(notes),
    )


def _columns(ratings: Ratings, table: ScoreTable, given: Mapping[str, str]) -> dict[str, str]:
    """Aspect -> column, for those that have one."""
    unknown = [name for name in given if name not in ratings.aspects]
    if unknown:
        raise ValueError(f"{ratings.name} has no aspect {', '.join(unknown)}: {ratings.aspects}")
    there = {*table.columns, *table.unreadable}
    chosen = {}
    for name in ratings.aspects:
        own = [known for known in (f"{ASPECT_PREFIX}{name}", name) if known in there]
        if name in given or own:
            chosen[name] = given.get(name) or own[0]
    if not chosen:
        raise ValueError(
            f"{table.name} has no column for any of {', '.join(ratings.aspects)}, it has "
            f"{', '.join(there)}: name them, --column_for ASPECT=COLUMN"
        )
    return chosen


def _aspect(
    aspect: str,
    column: str,
    rows: Sequence[Rating],
    scores: Mapping[str, float],
    matches: Mapping[str, str],
    settings: EvaluationSettings,
) -> AspectResult:
    rated = [row for row in rows if aspect in row.scores]
    said = torch.tensor([row.scores[aspect] for row in rated], dtype=torch.float64)
    found = torch.tensor([scores[matches[row.video]] for row in rated], dtype=torch.float64)
    numbers: dict[str, int] = {}
    groups = [
        numbers.setdefault(row.group or row.prompt or row.video, len(numbers)) for row in rated
    ]
    rank = linear = interval = undefined = None
    try:
        rank, linear = spearman(found, said), pearson(found, said)
        interval = _interval(found, said, torch.tensor(groups), settings)
    except ValueError as error:
        undefined = str(error)
    return AspectResult(
        aspect=aspect,
        column=column,
        ratings=len(rated),
        groups=len(numbers),
        spearman=rank,
        interval=interval,
        pearson=linear,
        mean_error=(found - said).abs().mean().item() if rated else 0.0,
        constant_error=(said - said.median()).abs().mean().item() if rated else 0.0,
        undefined=undefined,
    )


def _interval(
    found: Float64[Tensor, " rating"],
    said: Float64[Tensor, " rating"],
    groups: Int[Tensor, " rating"],
    settings: EvaluationSettings,
) -> tuple[float, float]:
    return bootstrap_interval(
        lambda drawn: spearman(found[drawn], said[drawn]),
        len(said),
        groups=groups,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def ratings_rows(result: RatingsResult) -> list[list[str]]:
    """A line for each aspect."""
    header = ["aspect", "column", "ratings", "groups", "spearman", "interval", "pearson"]
    rows = [[*header, "mean error", "of the best constant"]]
    for item in result.aspects:
        row = [item.aspect, item.column, str(item.ratings), str(item.groups)]
        row += ["undefined" if item.spearman is None else f"{item.spearman:.3f}"]
        ends = item.interval
        row += ["undefined" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"]
        row += ["undefined" if item.pearson is None else f"{item.pearson:.3f}"]
        rows.append([*row, f"{item.mean_error:.3f}", f"{item.constant_error:.3f}"])
    return rows


def ratings_facts(result: RatingsResult) -> list[str]:
    """How much was evaluated, and notes."""
    lines = [
        f"n = {result.evaluated} of {result.rows} ratings ({result.data}), scored by "
        f"{result.scorer}; intervals {result.settings.confidence:.0%}, "
        f"{result.settings.resamples} resamples of whole groups, seed {result.settings.seed}"
    ]
    if result.missing_videos:
        lines.append(f"incomplete: {len(result.missing_videos)} videos without a score")
    if result.left_out_aspects:
        left_out = named(list(result.left_out_aspects))
        lines.append(f"{len(result.left_out_aspects)} aspects without a column: {left_out}")
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"{item.aspect}: {item.undefined}" for item in result.aspects if item.undefined]
    return lines


def ratings_text(result: RatingsResult) -> str:
    """The text that the command prints."""
    return "\n".join(ratings_facts(result)) + "\n\n" + text_table(ratings_rows(result))


def ratings_markdown(result: RatingsResult) -> str:
    """The text of `ratings.md`."""
    facts = "\n".join(f"- {line}" for line in ratings_facts(result))
    heading = f"# {result.scorer} on {result.data}"
    return f"{heading}\n\n{facts}\n\n{markdown_table(ratings_rows(result))}"
