"""VideoFeedback, VideoFeedback2 and VideoDPO."""

import pytest

from gtsvj_reward.annotations import read_videodpo, read_videofeedback, read_videofeedback2
from tests.annotations.rows import (
    feedback2_row,
    feedback_row,
    write_json,
    write_parquet,
    write_videodpo,
)


def test_videofeedback(tmp_path):
    rows = [feedback_row("p1"), feedback_row("p2", **{"dynamic degree": None})]
    path = write_parquet(tmp_path / "x.parquet", rows)
    found = read_videofeedback(path)
    assert [scale.name for scale in found.scales] == list(found.aspects)
    assert {(scale.low, scale.high) for scale in found.scales} == {(1, 4)}
    assert found.rows[0].scores == {
        "visual quality": 1,
        "temporal consistency": 2,
        "dynamic degree": 3,
        "text-to-video alignment": 4,
        "factual consistency": 1,
    }
    assert (found.rows[0].row, found.rows[0].video) == ("p1", "https://x.org/p/p1.mp4")
    assert "dynamic degree" not in found.rows[1].scores
    assert found.skipped == {"`dynamic degree` is empty": 1}
    some = read_videofeedback(path, aspects=["factual consistency"])
    assert (some.aspects, some.skipped) == (("factual consistency",), {})


def test_videofeedback2(tmp_path):
    found = read_videofeedback2(write_json(tmp_path / "x.json", [feedback2_row()]))
    assert found.rows[0].scores == {
        "visual quality": 5,
        "text-to-video alignment": 3,
        "physical consistency": 1,
    }
    assert (found.rows[0].video, found.rows[0].prompt) == ("000123_h", "p")
    assert {(scale.low, scale.high) for scale in found.scales} == {(1, 5)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (feedback_row("p2", **{"visual quality": 5}), "outside the scale 1 to 4.*p2"),
        (feedback_row("p2", **{"visual quality": 0}), "outside the scale 1 to 4.*p2"),
        (feedback_row("p2", **{"video link": ""}), "`video link` are empty"),
        (feedback_row("p1"), "1 of 2 do not"),
    ],
)
def test_unsound_feedback(tmp_path, row, message):
    path = write_parquet(tmp_path / "x.parquet", [feedback_row("p1"), row])
    with pytest.raises(ValueError, match=message):
        read_videofeedback(path)


def test_feedback_of_the_other_release_is_refused(tmp_path):
    path = write_json(tmp_path / "x.json", [feedback2_row()])
    with pytest.raises(ValueError, match="no column `video link`, `text prompt`, `visual quality`"):
        read_videofeedback(path)
    with pytest.raises(ValueError, match="1 of 1 cells of `phy_score` are outside"):
        read_videofeedback2(write_json(tmp_path / "x.json", [feedback2_row(phy_score=6)]))


def test_videodpo(tmp_path):
    found = read_videodpo(write_videodpo(tmp_path))
    assert [(row.video_a, row.video_b, row.prompt) for row in found.rows] == [
        ("videos/2.mp4", "videos/0.mp4", "p"),
        ("videos/1.mp4", "videos/3.mp4", "q"),
    ]
    assert [row.labels for row in found.rows] == [{"overall": 1}] * 2


def test_unsound_videodpo(tmp_path):
    pair = {"video1": 0, "video2": 4, "frame_caption": "p"}
    with pytest.raises(
        ValueError, match="1 of 1 cells of `video2` are not numbers of the 4 videos"
    ):
        read_videodpo(write_videodpo(tmp_path, [pair]))
    with pytest.raises(
        ValueError, match=r"4 of 4 cells of `basic\.clip_duration` are not at least"
    ):
        read_videodpo(write_videodpo(tmp_path, seconds=0.5))
    path = write_videodpo(tmp_path)
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"names the videos of pair\.json"):
        read_videodpo(path)
