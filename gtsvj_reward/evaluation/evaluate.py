"""One scorer against one file of comparisons."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from gtsvj_reward.annotations import Comparison, Comparisons
from gtsvj_reward.evaluation.accuracies import measure_accuracies
from gtsvj_reward.evaluation.align import ScoredComparisons, align
from gtsvj_reward.evaluation.pairs import Pairs
from gtsvj_reward.evaluation.result import (
    Agreement,
    EvaluationResult,
    EvaluationSettings,
    ModelScore,
    WinRates,
)
from gtsvj_reward.evaluation.scores import ScoreTable
from gtsvj_reward.evaluation.votes import measure_votes
from gtsvj_reward.evaluation.win_rates import UndefinedScaleError, win_rates
from gtsvj_reward.progress import Progress


def evaluate_comparisons(
    comparisons: Comparisons,
    table: ScoreTable,
    *,
    benchmark: str = "pairs",
    column: str | None = None,
    columns: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    settings: EvaluationSettings | None = None,
    progress: bool = False,
    notes: Sequence[str] = (),
) -> EvaluationResult:
    """Measure how well scores agree with what people preferred.

    Args:
        comparisons: people's labels.
        table: the scores.
        benchmark: name of the benchmark; results of one benchmark are compared with each other.
        column: column of the table to compare with every dimension; `reward`, else `score`, else
            the only one by default.
        columns: dimension -> its own column instead; columns joined by `+` are added.
        allow_missing: leave out comparisons with a video that has no score, and record it.
        settings: split, bootstrap and seed.
        progress: show a progress bar.
        notes: further notes for the result.

    Raises:
        ValueError: for videos without a score (unless allowed), scores that are not finite, a
            column or dimension that does not exist, or if nothing is left.
    """
    settings = settings or EvaluationSettings()
    scored = align(comparisons, table, column, columns or {}, allow_missing, settings)
    tasks = list_tasks(comparisons, table, scored)
    pairs = {key: scored.pairs(*key) for key in {task[1:3]: None for task in tasks}}
    done = measured(tasks, pairs, settings, progress)
    return EvaluationResult(
        benchmark=benchmark,
        data=comparisons.name,
        fingerprint=fingerprint(comparisons.rows),
        scorer=table.name,
        comparisons=len(comparisons.rows),
        evaluated=len(scored.grouped.rows),
        missing_videos=scored.missing,
        videos=len(scored.videos()),
        left_out_labels=dict(comparisons.skipped),
        resampled=scored.grouped.resampled,
        settings=settings,
        dimensions=tuple(item for kind, item in done if kind == "dimension"),
        models=tuple(item for kind, item in done if kind == "model"),
        aspects=tuple(item for kind, item in done if kind == "aspect"),
        model_scores=model_scores(scored),
        notes=tuple(notes),
    )


Task = tuple[str, str, str, str | None]
"""What it belongs to, dimension, column, generator."""


def list_tasks(
    comparisons: Comparisons, table: ScoreTable, scored: ScoredComparisons
) -> list[Task]:
    """Everything to measure, in the order of the result."""
    tasks: list[Task] = [
        ("dimension", name, scored.columns[name], None) for name in comparisons.dimensions
    ]
    for model in scored.videos_by_model():
        tasks += [("model", name, scored.columns[name], model) for name in comparisons.dimensions]
    if scored.overall is not None:
        tasks += [("aspect", scored.overall, name, None) for name in table.aspects]
    return tasks


def measured(
    tasks: Sequence[Task],
    by_key: Mapping[tuple[str, str], Pairs],
    settings: EvaluationSettings,
    progress: bool,
) -> list[tuple[str, Agreement]]:
    """What each task belongs to, and its numbers."""
    done, sizes = [], []
    for _, dimension, column, model in tasks:
        pairs = by_key[dimension, column]
        sizes.append(len(pairs if model is None else pairs.involving(model)))
    with Progress(len(tasks), "evaluate", shown=progress, work=sum(sizes)) as bar:
        for (kind, dimension, column, model), size in zip(tasks, sizes, strict=True):
            done.append((kind, agreement(by_key, dimension, column, model, settings)))
            bar.update(work=size)
    return done


def agreement(
    by_key: Mapping[tuple[str, str], Pairs],
    dimension: str,
    column: str,
    model: str | None,
    settings: EvaluationSettings,
) -> Agreement:
    """All numbers of one column against one dimension, for one generator or all."""
    pairs = by_key[dimension, column]
    if model is not None:
        pairs = pairs.involving(model)
    accuracies, undefined = measure_accuracies(pairs, settings)
    rates: WinRates | None = None
    try:
        rates = win_rates(pairs.differences, pairs.labels, settings.confidence)
    except UndefinedScaleError as error:
        undefined["win_rates"] = str(error)
    return Agreement(
        dimension=dimension,
        column=column,
        model=model,
        pairs=len(pairs),
        human_ties=int((pairs.labels == 0).sum()),
        groups=len(pairs.groups.unique()),
        accuracies=accuracies,
        win_rates=rates,
        votes=measure_votes(pairs, settings) if pairs.voted else None,
        undefined=undefined,
    )


def model_scores(scored: ScoredComparisons) -> tuple[ModelScore, ...]:
    """Mean score of each generator in each column that a dimension uses, highest first."""
    found: list[ModelScore] = []
    for column in dict.fromkeys(scored.columns.values()):
        scores = scored.scores[column]
        means = [
            ModelScore(
                model=model,
                column=column,
                mean=sum(scores[video] for video in own) / len(own),
                videos=len(own),
            )
            for model, own in scored.videos_by_model().items()
        ]
        found += sorted(means, key=lambda item: (-item.mean, item.model))
    return tuple(found)


def fingerprint(rows: Iterable[Comparison]) -> str:
    """SHA-256 over the content of comparisons, in order, without the ids of their rows."""
    digest = hashlib.sha256()
    for row in rows:
        labels = sorted(row.labels.items())
        values: list[object] = [row.video_a, row.video_b, labels]
        values += [row.prompt, row.model_a, row.model_b]
        if row.group is not None:
            values.append(row.group)
        if row.probabilities or row.weight != 1:
            values.append([sorted(row.probabilities.items()), row.weight])
        digest.update(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()
