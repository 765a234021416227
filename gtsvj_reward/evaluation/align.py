"""Matches comparisons with a table of scores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gtsvj_reward.annotations import Comparisons
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.evaluation.pairs import GroupedRows, Pairs, group_rows, scored_pairs
from gtsvj_reward.evaluation.result import EvaluationSettings
from gtsvj_reward.evaluation.scores import ScoreTable, named

OVERALL = "overall"
"""Name (case-insensitive) of the dimension that aspects are compared with."""


@dataclass(frozen=True)
class ScoredComparisons:
    """The comparisons that can be evaluated, and the scores of their videos."""

    grouped: GroupedRows
    """Rows whose two videos have scores in every column in use."""
    columns: Mapping[str, str]
    """Dimension -> column."""
    overall: str | None
    """The dimension that aspects are compared with; None: no dimension is the overall one."""
    scores: Mapping[str, Mapping[str, float]]
    """Column in use -> video, as the comparisons name it -> score."""
    missing: tuple[str, ...]
    """Videos of the comparisons that lack a score, in order of appearance."""

    def pairs(self, dimension: str, column: str) -> Pairs:
        """The labelled pairs of a dimension, scored by a column."""
        return scored_pairs(self.grouped, dimension, self.scores[column])

    def videos(self) -> list[str]:
        """The different videos of the rows, in order of appearance."""
        return list(dict.fromkeys(v for r in self.grouped.rows for v in (r.video_a, r.video_b)))

    def videos_by_model(self) -> dict[str, list[str]]:
        """The different videos of each known generator, by the generator's name."""
        found: dict[str, dict[str, None]] = {}
        for row in self.grouped.rows:
            for model, video in ((row.model_a, row.video_a), (row.model_b, row.video_b)):
                if model is not None:
                    found.setdefault(model, {})[video] = None
        return {model: list(found[model]) for model in sorted(found)}


def align(
    comparisons: Comparisons,
    table: ScoreTable,
    column: str | None,
    columns: Mapping[str, str],
    allow_missing: bool,
    settings: EvaluationSettings,
) -> ScoredComparisons:
    """Match videos with scores, choose columns and group rows; see `evaluate_comparisons`."""
    unknown = [name for name in columns if name not in comparisons.dimensions]
    if unknown:
        raise ValueError(
            f"{comparisons.name} has no dimension {', '.join(unknown)}, it has: "
            f"{', '.join(comparisons.dimensions)}"
        )
    chosen = {
        name: columns.get(name) or column or table.default_column()
        for name in comparisons.dimensions
    }
    overall = overall_dimension(comparisons.dimensions)
    in_use = list(dict.fromkeys([*chosen.values(), *(table.aspects if overall else ())]))
    by_table = {name: table.scores(name) for name in in_use}
    wanted = comparisons.videos()
    matches = match_videos(wanted, table.videos, table.name)
    scores = {
        name: {video: values[matches[video]] for video in matches if matches[video] in values}
        for name, values in by_table.items()
    }
    missing = [v for v in wanted if any(v not in values for values in scores.values())]
    if missing and not allow_missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} videos of {comparisons.name} have no score in "
            f"{', '.join(f'`{name}`' for name in in_use)} of {table.name}: {named(missing)}. "
            "Score them, or evaluate the rest with `--allow_missing_videos` (`allow_missing`)"
        )
    absent = set(missing)
    grouped = group_rows(
        comparisons.rows, fraction=settings.calibration_fraction, seed=settings.seed
    ).keep([absent.isdisjoint((row.video_a, row.video_b)) for row in comparisons.rows])
    if not grouped.rows:
        raise ValueError(
            f"none of the {len(comparisons.rows)} comparisons of {comparisons.name} has scores for "
            f"both videos in {table.name}, which names videos like {named(list(table.videos), 2)}; "
            f"the comparisons name them like {named(list(wanted), 2)}"
        )
    return ScoredComparisons(grouped, chosen, overall, scores, tuple(missing))


def overall_dimension(dimensions: Iterable[str]) -> str | None:
    """The dimension called overall, or the only one; None if there is neither."""
    names = list(dimensions)
    called = [name for name in names if name.lower() == OVERALL]
    return called[0] if called else names[0] if len(names) == 1 else None
