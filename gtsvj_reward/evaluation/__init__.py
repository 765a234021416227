"""How well scores agree with what people prefer."""

from gtsvj_reward.evaluation.accuracies import METHODS as METHODS
from gtsvj_reward.evaluation.compare import (
    comparison_markdown as comparison_markdown,
    comparison_text as comparison_text,
    read_results as read_results,
)
from gtsvj_reward.evaluation.evaluate import evaluate_comparisons as evaluate_comparisons
from gtsvj_reward.evaluation.page import write_evaluation as write_evaluation
from gtsvj_reward.evaluation.published import (
    PUBLISHED as PUBLISHED,
    PublishedAccuracy as PublishedAccuracy,
)
from gtsvj_reward.evaluation.ratings import (
    AspectResult as AspectResult,
    RatingsResult as RatingsResult,
    evaluate_ratings as evaluate_ratings,
    ratings_markdown as ratings_markdown,
    ratings_text as ratings_text,
)
from gtsvj_reward.evaluation.ratings_page import write_ratings as write_ratings
from gtsvj_reward.evaluation.report import (
    result_markdown as result_markdown,
    result_text as result_text,
)
from gtsvj_reward.evaluation.result import (
    Accuracy as Accuracy,
    Agreement as Agreement,
    EvaluationResult as EvaluationResult,
    EvaluationSettings as EvaluationSettings,
    ModelScore as ModelScore,
    WinRateBin as WinRateBin,
    WinRates as WinRates,
)
from gtsvj_reward.evaluation.scores import ScoreTable as ScoreTable, read_scores as read_scores
from gtsvj_reward.metrics import (
    TieAccuracy as TieAccuracy,
    accuracy_against_threshold as accuracy_against_threshold,
    accuracy_at_threshold as accuracy_at_threshold,
    accuracy_with_ties as accuracy_with_ties,
    accuracy_without_ties as accuracy_without_ties,
    bootstrap_interval as bootstrap_interval,
    cross_fitted_accuracy_with_ties as cross_fitted_accuracy_with_ties,
    cross_fitted_interval as cross_fitted_interval,
    held_out_accuracy_with_ties as held_out_accuracy_with_ties,
    pearson as pearson,
    spearman as spearman,
    videoreward_accuracy_with_ties as videoreward_accuracy_with_ties,
    videoreward_accuracy_without_ties as videoreward_accuracy_without_ties,
)
