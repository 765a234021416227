"""Curves of training and calibration hold the numbers that were given."""

import numpy as np
import pytest

from gtsvj_reward.plotting import plot_calibration, plot_training

LOG = [
    {"step": 1, "loss": 0.5, "grad_norm": 3.0, "energy/real": 0.1, "energy/patch_swap": 0.2},
    {"step": 2, "loss": -0.5, "grad_norm": 2.0, "energy/real": -1.0, "energy/generated": 1.0},
    {"step": 2, "eval_loss": 0.0, "eval_accuracy/patch_swap": 0.75},
    {"train_runtime": 3.0, "step": 2},
]
KINDS = ["frame_drop", "patch_swap"]


def lines(panel):
    """Label -> points of each labelled line with data."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in panel.get_lines()
        if not line.get_label().startswith("_") and len(line.get_xdata())
    }


def test_each_panel_holds_its_numbers(tmp_path, figures):
    path = plot_training(LOG, bound=-2.5, path=tmp_path / "training.png")
    assert path.stat().st_size > 10_000
    loss, energy, norm, accuracy = figures[0].axes
    assert lines(loss) == {"loss": ([1, 2], [0.5, -0.5])}
    assert [list(line.get_ydata()) for line in loss.get_lines()].count([-2.5, -2.5]) == 1
    assert lines(energy) == {
        "real": ([1, 2], [0.1, -1.0]),
        "patch swap": ([1], [0.2]),
        "generated": ([2], [1.0]),
    }
    assert lines(norm) == {"gradient norm": ([1, 2], [3.0, 2.0])}
    assert lines(accuracy) == {"patch swap": ([2], [0.75])}
    named = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert named == ["real", "generated", "patch swap"]


def test_a_panel_without_data_says_so(tmp_path, figures):
    plot_training([{"step": 1, "loss": 0.5}], path=tmp_path / "training.png")
    said = [text.get_text() for panel in figures[0].axes for text in panel.texts]
    assert said == ["no energies logged", "no gradient norm logged", "no held-out accuracy logged"]


def test_prefixes_are_arguments(tmp_path, figures):
    log = [{"step": 1, "loss": 0.5, "e_real": 1.0, "acc_generated": 0.5}]
    plot_training(log, energy_prefix="e_", accuracy_prefix="acc_", path=tmp_path / "training.png")
    assert [list(lines(panel)) for panel in figures[0].axes[1::2]] == [["real"], ["generated"]]


def test_a_long_series_is_drawn_raw_and_as_a_running_mean(tmp_path, figures):
    values = np.random.default_rng(0).normal(size=64)
    log = [{"step": i, "loss": float(value)} for i, value in enumerate(values)]
    plot_training(log, path=tmp_path / "training.png")
    raw, smooth = figures[0].axes[0].get_lines()
    np.testing.assert_array_equal(raw.get_ydata(), values)
    # 64 entries: a window of 4, so each is averaged with two neighbours on either side.
    np.testing.assert_allclose(smooth.get_ydata()[10], values[8:13].mean())
    np.testing.assert_allclose(smooth.get_ydata()[0], values[:3].mean())


def test_a_run_that_logged_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of 1 log entries has both `step` and `loss`"):
        plot_training([{"step": 1, "eval_loss": 0.5}], path=tmp_path / "training.png")


def calibration(**changes):
    given = {
        "gradient_norms": {"frame_drop": [4.0, 2.0, 0.5], "patch_swap": [4.0, 3.0, 2.0]},
        "losses": {"frame_drop": [0.0, -1.0, -2.0], "patch_swap": [0.0, -0.1, -0.2]},
        "decay_times": {"frame_drop": 3, "patch_swap": None},
        "probabilities": {"frame_drop": 0.25, "patch_swap": 0.75},
        "epsilon": 1.0,
        **changes,
    }
    return given.pop("gradient_norms"), given.pop("losses"), given


def test_calibration_holds_its_numbers(tmp_path, figures):
    norms, losses, rest = calibration()
    plot_calibration(norms, losses, **rest, path=tmp_path / "calibration.png")
    norm_panel, loss_panel, bars = figures[0].axes
    drawn = lines(norm_panel)
    assert drawn["frame drop"] == ([1, 2, 3], [4.0, 2.0, 0.5])
    assert drawn["decay time τ"] == ([3], [1.0])
    assert drawn["threshold ε"][1] == [1.0, 1.0]
    assert lines(loss_panel)["patch swap"] == ([1, 2, 3], [0.0, -0.1, -0.2])
    assert [bar.get_width() for bar in bars.patches] == [0.25, 0.75]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["frame drop", "patch swap"]
    assert [text.get_text() for text in bars.texts] == ["0.250   τ = 3", "0.750   τ > 3"]
    assert [bool(bar.get_hatch()) for bar in bars.patches] == [False, True]


def test_each_run_may_have_its_own_threshold(tmp_path, figures):
    norms, losses, rest = calibration(epsilon={"frame_drop": 0.5, "patch_swap": 1.5})
    plot_calibration(norms, losses, **rest, path=tmp_path / "calibration.png")
    drawn = [list(line.get_ydata()) for line in figures[0].axes[0].get_lines()]
    assert [0.5, 0.5] in drawn
    assert [1.5, 1.5] in drawn
    assert lines(figures[0].axes[0])["decay time τ"] == ([3], [0.5])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("losses", {"frame_drop": [0.0]}),
        ("decay_times", {"frame_drop": 1}),
        ("probabilities", {"frame_drop": 1.0, "patch_swap": 0.0, "frame_shuffle": 0.0}),
        ("epsilon", {"patch_swap": 1.0}),
    ],
)
def test_kinds_that_do_not_match_are_refused(tmp_path, name, value):
    norms, losses, rest = calibration(**{name: value})
    with pytest.raises(ValueError, match=f"`{name}` must name the kinds"):
        plot_calibration(norms, losses, **rest, path=tmp_path / "calibration.png")
