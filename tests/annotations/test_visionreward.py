"""VisionRewardDB-Video as it lies on disk: parquet with an annotation struct."""

import pytest

from gtsvj_reward.annotations import (
    VISIONREWARD_ASPECTS,
    read_monetbench,
    read_visionreward_comparisons,
    read_visionreward_ratings,
)
from tests.annotations.rows import (
    answer_row,
    aspect_names,
    rating_row,
    ratings_schema,
    write_parquet,
)


def written(path, rows, names=None):
    return write_parquet(path / "train-00000-of-00001.parquet", rows, ratings_schema(names))


def test_aspects_are_those_of_the_card():
    assert [scale.name for scale in VISIONREWARD_ASPECTS] == aspect_names()
    # Read off the card's table, i = 0..20.
    ranges = "15 13 13 13 15 14 15 03 04 15 15 04 04 15 15 13 15 14 15 15 15"
    assert [f"{scale.low:g}{scale.high:g}" for scale in VISIONREWARD_ASPECTS] == ranges.split()


def test_ratings(tmp_path):
    rows = [
        rating_row(1, alignment=5, letters=None, shape_at_beginning=0, unsafe_type=2, safety=3),
        rating_row(2, color=2),
        {**rating_row(3), "annotation": None, "prompt": None},
    ]
    ratings = read_visionreward_ratings(written(tmp_path, rows))
    first, second, third = ratings.rows
    assert (first.row, first.video, first.prompt) == ("id-1", "videos/1.mp4", "prompt 1")
    assert first.model is None
    assert first.scores["alignment"] == 5
    assert first.scores["shape at beginning"] == 0
    assert (first.scores["unsafe type"], first.scores["safety"]) == (2, 3)
    assert "letters" not in first.scores
    assert len(first.scores) == 20
    assert second.scores == {**dict.fromkeys(aspect_names(), 1.0), "color": 2.0}
    assert (third.scores, third.prompt) == ({}, None)
    assert ratings.aspects == tuple(aspect_names())
    assert ratings.scales == VISIONREWARD_ASPECTS
    assert ratings.skipped == {
        f"`{name}` is empty": 2 if name == "letters" else 1 for name in aspect_names()
    }
    assert ratings.videos() == ("videos/1.mp4", "videos/2.mp4", "videos/3.mp4")


def test_aspects_are_looked_up_by_name(tmp_path):
    rows = [rating_row(1, alignment=5, shape_throughout=4, movement_reality=0, safety=2)]
    first = read_visionreward_ratings(written(tmp_path / "a", rows))
    names = sorted(aspect_names(), reverse=True)
    rows[0]["annotation"] = {name: rows[0]["annotation"][name] for name in names}
    second = read_visionreward_ratings(written(tmp_path / "b", rows, names))
    assert first.rows == second.rows
    assert list(second.rows[0].scores) == aspect_names()


def test_zero_on_a_scale_that_begins_at_one(tmp_path):
    rows = [rating_row(1, letters=0), rating_row(2, letters=0, shape_throughout=0, safety=None)]
    path = written(tmp_path, rows)
    with pytest.raises(
        ValueError, match=r"2 of 2 cells of `letters` are outside the scale 1 to 4.*id-1, id-2"
    ):
        read_visionreward_ratings(path)
    ratings = read_visionreward_ratings(path, zero_is_missing=True)
    assert ratings.skipped == {"`letters` is 0": 2, "`safety` is empty": 1}
    assert "letters" not in ratings.rows[0].scores
    assert ratings.rows[1].scores["shape throughout"] == 0


def test_labels_out_of_range(tmp_path):
    path = written(tmp_path, [rating_row(1), rating_row(2, focus=4)])
    with pytest.raises(ValueError, match=r"1 of 2 cells of `focus` .* 1 to 3. Found 4.*rows id-2"):
        read_visionreward_ratings(path)
    path = written(tmp_path, [rating_row(1, safety=-1)])
    with pytest.raises(ValueError, match="`safety`"):
        read_visionreward_ratings(path, zero_is_missing=True)


def test_ids_and_names(tmp_path):
    path = written(tmp_path, [rating_row(1), {**rating_row(2), "internal_id": "id-1"}])
    with pytest.raises(ValueError, match=r"`internal_id` must tell rows apart, 1 of 2.*id_column"):
        read_visionreward_ratings(path)
    ratings = read_visionreward_ratings(path, id_column=None, video_column="url")
    assert [row.row for row in ratings.rows] == [f"{path.name} row 1", f"{path.name} row 2"]
    assert ratings.rows[0].video == "https://host/v/clip%201.mp4?sign=1"


def test_other_revisions_are_refused(tmp_path):
    row = rating_row(1)
    labels = {"extra": 1, **row["annotation"]}
    del labels["focus"]
    path = write_parquet(tmp_path / "x.parquet", [{**row, "annotation": labels}])
    with pytest.raises(ValueError, match=r"of id-1 lacks \['focus'\] and has \['extra'\]"):
        read_visionreward_ratings(path)
    path = write_parquet(tmp_path / "x.parquet", [{**row, "annotation": "{}"}])
    with pytest.raises(ValueError, match="must hold aspects and their labels, got str"):
        read_visionreward_ratings(path)
    del row["annotation"]
    path = write_parquet(tmp_path / "x.parquet", [row])
    with pytest.raises(ValueError, match="no column `annotation`, it has `video_path`"):
        read_visionreward_ratings(path)


def test_comparisons(tmp_path):
    rows = [answer_row(1, "video1"), answer_row(2, " Video2"), answer_row(3, "TIE")]
    write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    comparisons = read_visionreward_comparisons(tmp_path)
    assert [row.labels for row in comparisons.rows] == [
        {"overall": 1},
        {"overall": -1},
        {"overall": 0},
    ]
    first = comparisons.rows[0]
    assert (first.row, first.video_a, first.video_b) == ("id-1", "v/1-1.mp4", "v/1-2.mp4")
    assert (first.prompt, first.model_a, first.model_b) == ("prompt 1", None, None)
    assert (comparisons.dimensions, comparisons.skipped) == (("overall",), {})
    monetbench = read_monetbench(tmp_path)
    assert monetbench.rows == comparisons.rows
    assert "MonetBench" in monetbench.name


@pytest.mark.parametrize("answer", ["video3", "", None, "A"])
def test_unknown_answers(tmp_path, answer):
    rows = [answer_row(1, "video1"), answer_row(2, answer)]
    path = write_parquet(tmp_path / "x.parquet", rows)
    with pytest.raises(ValueError, match=r"1 of 2 cells of `standard_answer`.*rows id-2"):
        read_visionreward_comparisons(path)
