"""Pictures of an evaluation."""

from pathlib import Path

from gtsvj_reward.annotations import Comparisons
from gtsvj_reward.evaluation.align import ScoredComparisons, align
from gtsvj_reward.evaluation.result import Agreement, EvaluationResult, WinRates
from gtsvj_reward.evaluation.scores import ScoreTable
from gtsvj_reward.metrics import accuracy_against_threshold
from gtsvj_reward.plotting import (
    ThresholdCurve,
    WinRateCurve,
    plot_score_histograms,
    plot_threshold_curves,
    plot_win_rates,
)


def plot_evaluation(
    result: EvaluationResult, comparisons: Comparisons, table: ScoreTable, out: str | Path
) -> list[Path]:
    """Draw tie thresholds, win rates and score histograms; needs matplotlib (the extra `plot`).

    Args:
        result: what `evaluate_comparisons` returned.
        comparisons: what it was given.
        table: likewise.
        out: folder for `thresholds.png`, `win_rates.png` and one `scores-<n>.png` for each column
            in use; what is undefined for all labels is not drawn.

    Returns:
        The files written.
    """
    columns = {item.dimension: item.column for item in result.dimensions}
    scored = align(comparisons, table, None, columns, True, result.settings)
    folder, written = Path(out), []
    curves = {
        item.dimension: threshold_curve(scored, item)
        for item in result.dimensions
        if "with_ties" in item.accuracies
    }
    if curves:
        written.append(plot_threshold_curves(curves, path=folder / "thresholds.png"))
    rates = {
        item.dimension: win_rate_curve(item.win_rates)
        for item in result.dimensions
        if item.win_rates is not None
    }
    if rates:
        written.append(plot_win_rates(rates, path=folder / "win_rates.png"))
    for number, column in enumerate(dict.fromkeys(columns.values()), start=1):
        written.append(
            plot_score_histograms(
                scores_by_model(result, scored, column),
                title=f"{result.scorer}: {column}",
                path=folder / f"scores-{number}.png",
            )
        )
    return written


def threshold_curve(scored: ScoredComparisons, item: Agreement) -> ThresholdCurve:
    """Accuracy at every threshold, for one label."""
    pairs = scored.pairs(item.dimension, item.column)
    thresholds, accuracies = accuracy_against_threshold(pairs.differences, pairs.labels)
    found = item.accuracies["with_ties"]
    return ThresholdCurve(
        thresholds=thresholds.tolist(),
        accuracies=accuracies.tolist(),
        fitted=found.threshold or 0.0,
        constant=found.constant,
        chance=found.chance,
    )


def win_rate_curve(rates: WinRates) -> WinRateCurve:
    """The bins of one label's win rates."""
    bins = rates.bins
    return WinRateCurve(
        predicted=[b.predicted for b in bins],
        observed=[b.observed for b in bins],
        intervals=[b.interval for b in bins],
        pairs=[b.pairs for b in bins],
    )


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
