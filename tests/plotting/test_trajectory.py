"""Points stand over the frames that they were read from."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image

from gtsvj_reward.plotting import plot_trajectory, step_spans


def test_step_spans_by_hand():
    # Latent 0 is frame 0, latent k is frames 4k - 3 .. 4k.
    assert step_spans(9) == [(0, 1), (1, 5), (5, 9)]
    assert step_spans(11) == [(0, 1), (1, 5), (5, 9)]  # frames 9 and 10 fill no latent
    assert step_spans(4, temporal_compression=1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    # Two latents per step. Three latents are padded in front: (0, 0), (1, 2). Four are not.
    assert step_spans(9, temporal_patch=2) == [(0, 1), (1, 9)]
    assert step_spans(13, temporal_patch=2) == [(0, 5), (5, 13)]
    # latents 0, 2 and 4 of five are looked at, each standing for the one behind it as well
    assert step_spans(17, temporal_stride=2) == [(0, 5), (5, 13), (13, 17)]
    # of seven latents 0, 2, 4 and 6, two to a step
    assert step_spans(25, temporal_stride=2, temporal_patch=2) == [(0, 13), (13, 25)]


@given(frames=st.integers(1, 100), compression=st.integers(1, 8), patch=st.integers(1, 3))
def test_steps_cover_the_clip_without_gaps(frames, compression, patch):
    spans = step_spans(frames, temporal_compression=compression, temporal_patch=patch)
    latents = 1 + (frames - 1) // compression
    assert len(spans) == -(-latents // patch)
    assert spans[0][0] == 0
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    assert all(start < end for start, end in spans)
    assert frames - compression < spans[-1][1] <= frames
    assert all(end - start == compression * patch for start, end in spans[1:])


def test_points_stand_at_the_middle_of_their_frames(tmp_path, figures, make_clip):
    energies = torch.tensor([0.5, -1.0, 2.0])
    path = plot_trajectory(
        make_clip(9),
        {"real": energies, "mine": -energies},
        fps=4.0,
        title="a title",
        path=tmp_path / "plot.png",
    )
    assert path == tmp_path / "plot.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 1000
    strip, panel = figures[0].axes
    first, second = panel.get_lines()
    # Spans 0-1, 1-5, 5-9 at 4 fps: middles at 0.5 / 4, 3 / 4 and 7 / 4 seconds.
    np.testing.assert_allclose(first.get_xdata(), [0.125, 0.75, 1.75])
    np.testing.assert_allclose(first.get_ydata(), [0.5, -1.0, 2.0])
    np.testing.assert_allclose(second.get_ydata(), [-0.5, 1.0, -2.0])
    assert panel.get_xlim() == strip.get_xlim() == (0, 2.25)
    boxes = panel.get_position(), strip.get_position()
    assert (boxes[0].x0, boxes[0].x1) == (boxes[1].x0, boxes[1].x1), "one time axis"
    assert boxes[0].y0 > boxes[1].y1, "the strip is below"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["real", "mine"]
    assert panel.get_ylabel() == "energy"


def test_the_strip_shows_the_frames_of_its_time(tmp_path, figures, make_clip):
    plot_trajectory(make_clip(49), {"x": torch.zeros(13)}, fps=8.0, path=tmp_path / "plot.png")
    pictures = figures[0].axes[0].get_images()
    assert len(pictures) >= 5
    for picture in pictures:
        left, right, _, _ = picture.get_extent()
        frame = int(picture.get_array()[0, 0, 0])
        assert frame / 8 <= (left + right) / 2 <= (frame + 1) / 8
    edges = [picture.get_extent()[0] for picture in pictures]
    np.testing.assert_allclose(edges, np.arange(len(edges)) * 6.125 / len(edges))


@pytest.mark.parametrize(("height", "width"), [(12, 18), (60, 20), (10, 60)])
@pytest.mark.parametrize("frames", [1, 5, 49])
def test_pictures_keep_their_shape(tmp_path, figures, make_clip, frames, height, width):
    steps = 1 + (frames - 1) // 4
    plot_trajectory(
        torch.from_numpy(make_clip(frames, height, width)),
        {"x": torch.zeros(steps)},
        fps=8.0,
        path=tmp_path / "plot.png",
    )
    strip = figures[0].axes[0]
    across, up = figures[0].get_size_inches()
    box = strip.get_position()
    drawn = box.width * across / len(strip.get_images()) / (box.height * up)
    assert drawn == pytest.approx(width / height)


@pytest.mark.parametrize(
    ("steps", "message"),
    [(2, r"9 frames have 3 latent steps .* 'x' has shape \(2,\)"), (4, r"shape \(4,\)")],
)
def test_a_trajectory_of_another_clip_is_refused(tmp_path, make_clip, steps, message):
    with pytest.raises(ValueError, match=message):
        plot_trajectory(make_clip(9), {"x": torch.zeros(steps)}, fps=8.0, path=tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_other_bad_arguments_are_refused(tmp_path, make_clip):
    with pytest.raises(ValueError, match="at least one trajectory"):
        plot_trajectory(make_clip(9), {}, fps=8.0, path=tmp_path / "p.png")
    with pytest.raises(ValueError, match=r"`fps` must be positive, got 0\.0"):
        plot_trajectory(make_clip(9), {"x": torch.zeros(3)}, fps=0.0, path=tmp_path / "p.png")
    with pytest.raises(ValueError, match="must be at least 1"):
        step_spans(0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "frames", [np.zeros((9, 4, 4), np.uint8), np.zeros((9, 4, 4, 3), np.float32)], ids=str
)
def test_frames_that_are_not_rgb_bytes_are_refused(tmp_path, frames):
    with pytest.raises(ValueError, match=r"expected frames \(frame, height, width, 3\)"):
        plot_trajectory(frames, {"x": torch.zeros(3)}, fps=8.0, path=tmp_path / "p.png")
