"""The curves of an alignment run hold the numbers that were logged."""

import pytest

from gtsvj_reward.plotting import plot_alignment
from tests.plotting.test_training import lines

LOG = [
    {"iteration": 0, "proxy": 0.5, "eval/caption": -2.0},
    {"iteration": 1, "reward": 0.6, "kl": 0.01, "clip_fraction": 0.1},
    {"iteration": 2, "reward": 0.7, "kl": 0.02, "clip_fraction": 0.2},
    {"iteration": 2, "proxy": 0.8, "eval/caption": -2.5},
]


def test_each_panel_holds_its_numbers(tmp_path, figures):
    assert plot_alignment(LOG, path=tmp_path / "curves.png").stat().st_size > 5_000
    trained, watched, held = figures[0].axes
    assert lines(trained) == {"reward": ([0, 2], [0.5, 0.8])}
    assert lines(watched) == {"caption": ([0, 2], [-2.0, -2.5])}
    assert watched.get_title(loc="left") == "only watched: caption"
    assert lines(held) == {"kl": ([1, 2], [0.01, 0.02]), "clip_fraction": ([1, 2], [0.1, 0.2])}


def test_what_was_not_measured_has_no_panel(tmp_path, figures):
    plot_alignment([{"iteration": 0, "proxy": 0.5}], path=tmp_path / "curves.png")
    [trained] = figures[0].axes
    assert lines(trained) == {"reward": ([0], [0.5])}
    with pytest.raises(ValueError, match="none of 1 log entries"):
        plot_alignment([{"iteration": 0}], path=tmp_path / "curves.png")
