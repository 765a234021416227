"""The page on stages 2 and 3 holds the numbers of the log."""

import pytest

from gtsvj_reward.plotting import plot_stage
from tests.plotting.test_training import lines

ASPECTS = [
    {"step": 1, "loss": 0.5, "grad_norm": 3.0},
    {"step": 2, "loss": 0.25, "grad_norm": 2.0},
    {"step": 1, "eval_loss": 0.6, "eval_spearman": 0.1, "eval_spearman/clear": 0.9},
    {"step": 2, "eval_loss": 0.4, "eval_spearman": 0.2, "eval_pearson": 0.3,
     "eval_spearman/clear": 0.5, "eval_spearman/focus": -0.25},
]  # fmt: skip


def test_losses_agreement_and_the_last_correlations(tmp_path, figures):
    path = plot_stage(ASPECTS, path=tmp_path / "training.png")
    assert path.stat().st_size > 10_000
    loss, agreement, norm, last = figures[0].axes
    assert lines(loss) == {"training": ([1, 2], [0.5, 0.25]), "held out": ([1, 2], [0.6, 0.4])}
    assert lines(agreement) == {
        "Spearman, mean of aspects": ([1, 2], [0.1, 0.2]),
        "Pearson, mean of aspects": ([2], [0.3]),
    }
    assert lines(norm) == {"gradient norm": ([1, 2], [3.0, 2.0])}
    names = [label.get_text() for label in last.get_yticklabels()]
    widths = [bar.get_width() for bar in last.patches]
    assert dict(zip(names, widths, strict=True)) == {"clear": 0.5, "focus": -0.25}
    assert last.get_xlim()[0] <= -0.25


def test_the_preference_stage_shows_training_accuracy(tmp_path, figures):
    log = [{"step": 1, "loss": 0.7, "accuracy": 0.5}, {"step": 2, "loss": 0.6, "accuracy": 0.75}]
    plot_stage(log, path=tmp_path / "training.png")
    assert lines(figures[0].axes[3]) == {"share of untied pairs": ([1, 2], [0.5, 0.75])}
    said = [text.get_text() for panel in figures[0].axes for text in panel.texts]
    assert said == ["nothing logged", "nothing logged"]


def test_a_log_without_losses_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of 1 log entries has both `step` and `loss`"):
        plot_stage([{"step": 1, "eval_loss": 1.0}], path=tmp_path / "x.png")
