"""Film strips: the right frames, labels and scores; and what all plots leave alone."""

import sys

import matplotlib
import pytest
import torch
from PIL import Image

from gtsvj_reward.plotting import (
    plot_calibration,
    plot_film_strips,
    plot_training,
    plot_trajectory,
)


def every_plot(make_clip, folder):
    """Each plot as a call without arguments."""
    curves = {"frame_drop": [3.0, 2.0, 1.0]}
    return {
        "trajectory": lambda: plot_trajectory(
            make_clip(9), {"x": torch.zeros(3)}, fps=8.0, path=folder / "a.png"
        ),
        "strips": lambda: plot_film_strips(
            [make_clip(9)], labels=["a"], scores=[1.0], path=folder / "b.png"
        ),
        "calibration": lambda: plot_calibration(
            curves,
            curves,
            decay_times={"frame_drop": 3},
            probabilities={"frame_drop": 1.0},
            epsilon=1.0,
            path=folder / "c.png",
        ),
        "training": lambda: plot_training([{"step": 1, "loss": 0.5}], path=folder / "d.png"),
    }


PLOTS = ["trajectory", "strips", "calibration", "training"]


def test_dollars_are_no_formula(tmp_path, make_clip):
    path = plot_film_strips([make_clip(2)], labels=["$x^$"], scores=[1.0], score_name="$_$",
                            title="a $ b ^$", path=tmp_path / "x.png")  # fmt: skip
    assert path.is_file()


def test_rows_show_evenly_spaced_frames(tmp_path, figures, make_clip):
    long, short = make_clip(16), torch.from_numpy(make_clip(3, height=20))
    plot_film_strips(
        [long, short],
        labels=["the long clip", "the short clip"],
        scores=[1.25, -0.5],
        columns=4,
        score_name="energy",
        title="Two clips",
        path=tmp_path / "strips.png",
    )
    rows = figures[0].axes
    shown = [[int(image.get_array()[0, 0, 0]) for image in row.get_images()] for row in rows]
    # 16 frames in 4 pictures: the frames at the middle of 0-4, 4-8, 8-12 and 12-16.
    assert shown == [[2, 6, 10, 14], [0, 1, 2]]
    tops = [row.get_position().y1 for row in rows]
    assert tops[0] > tops[1]
    texts = [text.get_text() for text in figures[0].texts]
    for expected in ("the long clip", "the short clip", "+1.250", "\u22120.500", "energy"):
        assert expected in texts
    across, up = figures[0].get_size_inches()
    for row, (height, width) in zip(rows, [(12, 18), (20, 18)], strict=True):
        box = row.get_position()
        drawn = box.width * across / len(row.get_images()) / (box.height * up)
        assert drawn == pytest.approx(width / height)


def test_the_file_shows_the_colours_of_the_clip(tmp_path, make_clip):
    frames = make_clip(8)
    frames[:] = (200, 30, 90)
    path = plot_film_strips([frames], labels=["a"], scores=[0.0], path=tmp_path / "strips.png")
    with Image.open(path) as picture:
        counts = {colour: n for n, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert counts[200, 30, 90] > 0.35 * picture.size[0] * picture.size[1]


@pytest.mark.parametrize(("labels", "scores"), [(["a"], [1.0, 2.0]), (["a", "b", "c"], [1.0, 2.0])])
def test_rows_without_label_or_score_are_refused(tmp_path, make_clip, labels, scores):
    with pytest.raises(ValueError, match=f"2 clips, {len(labels)} labels, {len(scores)} scores"):
        plot_film_strips([make_clip(4)] * 2, labels=labels, scores=scores, path=tmp_path / "p.png")


def test_no_clips_and_no_columns_are_refused(tmp_path, make_clip):
    with pytest.raises(ValueError, match="at least one clip"):
        plot_film_strips([], labels=[], scores=[], path=tmp_path / "p.png")
    with pytest.raises(ValueError, match="`columns` must be at least 1, got 0"):
        plot_film_strips(
            [make_clip(4)], labels=["a"], scores=[0.0], columns=0, path=tmp_path / "p.png"
        )


@pytest.mark.parametrize("name", PLOTS)
def test_without_matplotlib_the_message_says_what_to_install(
    tmp_path, monkeypatch, make_clip, name
):
    for module in [m for m in sys.modules if m == "matplotlib" or m.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "gtsvj-reward\[plot\]"'):
        every_plot(make_clip, tmp_path)[name]()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PLOTS)
def test_plots_leave_global_state_alone(tmp_path, monkeypatch, make_clip, name):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    before = matplotlib.rcParams.copy()
    every_plot(make_clip, tmp_path)[name]()
    assert matplotlib.rcParams.copy() == before


def test_the_suffix_sets_the_format(tmp_path, make_clip):
    path = plot_film_strips([make_clip(4)], labels=["a"], scores=[0.0], path=tmp_path / "p.svg")
    assert "<svg" in path.read_text()
