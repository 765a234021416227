"""Plots of an evaluation hold the numbers that were given."""

import pytest

from gtsvj_reward.plotting import (
    ThresholdCurve,
    WinRateCurve,
    evaluation,
    plot_score_histograms,
    plot_threshold_curves,
    plot_win_rates,
)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved in the test, in order."""
    seen = []

    def save_and_keep(figure, path, save=evaluation.save):
        seen.append(figure)
        return save(figure, path)

    monkeypatch.setattr(evaluation, "save", save_and_keep)
    return seen


def curve(**changes):
    fields = {
        "thresholds": [0.0, 0.5, 2.0],
        "accuracies": [0.4, 0.7, 0.3],
        "fitted": 0.5,
        "constant": 0.3,
        "chance": 0.35,
    }
    return ThresholdCurve(**{**fields, **changes})


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines()}


def test_threshold_curves(tmp_path, figures):
    names = ["VQ", "MQ", "TA", "overall"]
    path = plot_threshold_curves(dict.fromkeys(names, curve()), path=tmp_path / "t.png")
    assert path.stat().st_size > 10_000
    panels = figures[0].axes
    assert [panel.get_title(loc="left") for panel in panels] == names
    drawn = lines(panels[3])
    assert drawn["accuracy"].get_drawstyle() == "steps-post"
    assert list(drawn["accuracy"].get_xdata()) == [0.0, 0.5, 2.0]
    assert list(drawn["accuracy"].get_ydata()) == [0.4, 0.7, 0.3]
    assert list(drawn["threshold in use"].get_xdata()) == [0.5, 0.5]
    assert list(drawn["constant score"].get_ydata()) == [0.3, 0.3]
    assert list(drawn["random scores"].get_ydata()) == [0.35, 0.35]


def test_win_rates(tmp_path, figures):
    rates = WinRateCurve(
        predicted=[0.2, 0.8], observed=[0.25, 0.7], intervals=[(0.1, 0.5), (0.6, 0.9)], pairs=[4, 9]
    )
    plot_win_rates({"overall": rates}, path=tmp_path / "w.png")
    [defined] = figures[0].axes
    points = [line for line in defined.get_lines() if line.get_marker() == "o"]
    assert list(points[0].get_xdata()) == [0.2, 0.8]
    assert list(points[0].get_ydata()) == [0.25, 0.7]
    [bars] = [c for c in defined.collections if len(c.get_segments()) == 2]
    ends = [[round(float(y), 9) for y in segment[:, 1]] for segment in bars.get_segments()]
    assert ends == [[0.1, 0.5], [0.6, 0.9]]
    assert [text.get_text() for text in defined.texts] == ["4", "9"]


def test_histograms_share_their_bins(tmp_path, figures):
    scores = {"good": [1.0, 2.0, 2.0], "bad": [-1.0], "same": [0.5, 0.5]}
    plot_score_histograms(scores, title="mine", path=tmp_path / "h.svg")
    panels = figures[0].axes
    counts = [[bar.get_height() for bar in panel.patches] for panel in panels]
    assert [sum(heights) for heights in counts] == [3, 1, 2]
    assert counts[0][-1] == 2, "the highest score is in the last bin"
    assert counts[1][0] == 1, "the lowest in the first, of all groups"
    means = [panel.get_lines()[0].get_xdata()[0] for panel in panels]
    assert means == pytest.approx([5 / 3, -1.0, 0.5])
    assert panels[0].get_title(loc="left") == "good: mean 1.667, 3 videos"


def test_one_score_alone_is_drawn(tmp_path):
    assert plot_score_histograms({"all": [2.0, 2.0]}, path=tmp_path / "h.png").is_file()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: plot_threshold_curves({}, path=path), "no threshold curves to draw"),
        (lambda path: plot_win_rates({}, path=path), "no win rates to draw"),
        (
            lambda path: plot_threshold_curves({"x": curve(accuracies=[1.0])}, path=path),
            r"lists of 'x' must be equally long, got \[3, 1\]",
        ),
        (
            lambda path: plot_threshold_curves(
                {"x": curve(thresholds=[], accuracies=[])}, path=path
            ),
            "the curve 'x' has no thresholds",
        ),
        (lambda path: plot_score_histograms({}, path=path), "got empty: all"),
        (lambda path: plot_score_histograms({"x": []}, path=path), r"got empty: \['x'\]"),
    ],
)
def test_nothing_to_draw_is_refused(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "p.png")
