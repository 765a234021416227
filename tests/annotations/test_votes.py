"""VideoGen-RewardBench, training files of its kind, and GenAI-Bench."""

import json

import pytest

from gtsvj_reward.annotations import (
    Rating,
    read_genai_bench,
    read_videogen_rewardbench,
    read_videoreward_comparisons,
    read_videoreward_ratings,
)
from tests.annotations.rows import BENCHMARK_ROWS, vote_row, write_csv, write_parquet


def test_videogen_rewardbench(tmp_path):
    comparisons = read_videogen_rewardbench(write_csv(tmp_path / "x.csv", BENCHMARK_ROWS))
    first, second = comparisons.rows
    assert first.labels == {"VQ": 1, "MQ": 0, "TA": -1, "overall": 1}
    assert second.labels == {"MQ": -1, "TA": 0, "overall": -1}
    assert first.prompt == 'A fox, "running",\nin snow'
    assert (first.video_a, first.video_b) == (
        BENCHMARK_ROWS[0]["path_A"],
        "videos/gen3/gen3_00007.mp4",
    )
    assert (first.model_a, first.model_b) == ("kling1.5", "gen3")
    assert second.row == "x.csv row 2"
    assert comparisons.dimensions == ("VQ", "MQ", "TA", "overall")
    assert comparisons.skipped == {"`VQ` is invalid": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MQ": "C"}, r"1 of 2 cells of `MQ` are not a known label.*Found 'C'.*x.csv row 2"),
        ({"Overall": ""}, r"1 of 2 cells of `Overall` are not a known label"),
        ({"path_B": ""}, r"1 of 2 cells of `path_B` are empty"),
        ({"path_B": BENCHMARK_ROWS[1]["path_A"]}, "same video as `path_A`.*x.csv row 2"),
    ],
)
def test_unsound_rows(tmp_path, changes, message):
    path = write_csv(tmp_path / "x.csv", [BENCHMARK_ROWS[0], {**BENCHMARK_ROWS[1], **changes}])
    with pytest.raises(ValueError, match=message):
        read_videogen_rewardbench(path)


@pytest.mark.parametrize("column", ["path_A", "A_model", "prompt", "VQ", "Overall"])
def test_missing_columns(tmp_path, column):
    rows = [{k: v for k, v in row.items() if k != column} for row in BENCHMARK_ROWS]
    with pytest.raises(ValueError, match=f"no column `{column}`, it has"):
        read_videogen_rewardbench(write_csv(tmp_path / "x.csv", rows))


def training_row(a, b, mos_a, mos_b, **changes):
    names = ("path_A", "path_B", "prompt", "VQ", "MQ", "TA")
    row = dict(zip(names, (a, b, "p", "A", "invalid", "same"), strict=True))
    row |= {f"MOS_A_{name}": value for name, value in mos_a.items()}
    row |= {f"MOS_B_{name}": value for name, value in mos_b.items()}
    return {**row, **changes}


def test_training_comparisons(tmp_path):
    row = training_row("a.mp4", "b.mp4", {}, {})
    comparisons = read_videoreward_comparisons(write_csv(tmp_path / "x.csv", [row]))
    assert comparisons.dimensions == ("VQ", "MQ", "TA")
    assert comparisons.rows[0].labels == {"VQ": 1, "TA": 0}
    assert comparisons.skipped == {"`MQ` is invalid": 1}
    row = {"B_model": "m", **row, "Overall": "B"}
    comparisons = read_videoreward_comparisons(write_csv(tmp_path / "x.csv", [row]))
    assert comparisons.dimensions == ("VQ", "MQ", "TA", "overall")
    assert comparisons.rows[0].labels["overall"] == -1
    assert (comparisons.rows[0].model_a, comparisons.rows[0].model_b) == (None, "m")


def test_training_ratings(tmp_path):
    rows = [
        training_row("a", "b", {"VQ": "3.5", "MQ": "0.0"}, {"VQ": "0", "MQ": ""}),
        training_row("c", "a", {"VQ": "1", "MQ": "2"}, {"VQ": "3.5", "MQ": "4"}),
        training_row("a", "c", {"VQ": "5", "MQ": "5"}, {"VQ": "1", "MQ": "2"}, prompt="other"),
    ]
    ratings = read_videoreward_ratings(write_csv(tmp_path / "x.csv", rows))
    # By hand: a (prompt p) has VQ from row 1 and MQ from row 2, and VQ again in row 2.
    assert ratings.rows == (
        Rating(row="x.csv row 1 A", video="a", scores={"VQ": 3.5, "MQ": 4.0}, prompt="p"),
        Rating(row="x.csv row 1 B", video="b", scores={}, prompt="p"),
        Rating(row="x.csv row 2 A", video="c", scores={"VQ": 1.0, "MQ": 2.0}, prompt="p"),
        Rating(row="x.csv row 3 A", video="a", scores={"VQ": 5.0, "MQ": 5.0}, prompt="other"),
        Rating(row="x.csv row 3 B", video="c", scores={"VQ": 1.0, "MQ": 2.0}, prompt="other"),
    )
    assert ratings.aspects == ("VQ", "MQ")
    assert ratings.skipped == {
        "`MOS_A_MQ` is 0": 1,
        "`MOS_B_VQ` is 0": 1,
        "`MOS_B_MQ` is empty": 1,
        "the same score of the same video again": 1,
    }
    assert (ratings.scales, ratings.rows[0].model) == ((), None)


@pytest.mark.parametrize("again", ["a", ".\\a"])
def test_training_ratings_that_disagree(tmp_path, again):
    rows = [
        training_row("a", "b", {"VQ": "3"}, {"VQ": "2"}),
        training_row("c", again, {"VQ": "1"}, {"VQ": "4"}),
    ]
    with pytest.raises(
        ValueError, match=r"`VQ` of .*a is 3 in x.csv row 1 A and 4 in x.csv row 2 B$"
    ):
        read_videoreward_ratings(write_csv(tmp_path / "x.csv", rows))


def test_training_ratings_need_both_sides(tmp_path):
    path = write_csv(tmp_path / "x.csv", [training_row("a", "b", {"VQ": "3"}, {})])
    with pytest.raises(ValueError, match="no column `MOS_B_VQ`"):
        read_videoreward_ratings(path)
    path = write_csv(tmp_path / "x.csv", [training_row("a", "b", {}, {})])
    with pytest.raises(ValueError, match="no column `MOS_A_VQ`"):
        read_videoreward_ratings(path)
    path = write_csv(tmp_path / "x.csv", [training_row("a", "b", {"VQ": "nan"}, {"VQ": "1"})])
    with pytest.raises(ValueError, match="`MOS_A_VQ` are not finite numbers"):
        read_videoreward_ratings(path)


VOTES = ("leftvote", "rightvote", "tievote", "bothbad_vote")


def test_genai_bench(tmp_path):
    rows = [vote_row(number, vote) for number, vote in enumerate(VOTES)]
    comparisons = read_genai_bench(write_parquet(tmp_path / "test-00000-of-00001.parquet", rows))
    assert [row.labels["overall"] for row in comparisons.rows] == [1, -1, 0, 0]
    first = comparisons.rows[0]
    assert (first.video_a, first.video_b) == (
        "https://host/left/0.mp4",
        "https://host/right/0.mp4",
    )
    assert (first.model_a, first.model_b, first.prompt) == ("ModelScope", "Pika", "prompt 0")
    assert (comparisons.dimensions, comparisons.skipped) == (("overall",), {})
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert [row.labels for row in read_genai_bench(tmp_path / "x.json").rows] == [
        row.labels for row in comparisons.rows
    ]


@pytest.mark.parametrize("vote", ["bothgood_vote", "left", "", None])
def test_unknown_votes(tmp_path, vote):
    path = write_parquet(tmp_path / "x.parquet", [vote_row(1, "leftvote"), vote_row(2, vote)])
    with pytest.raises(ValueError, match=r"1 of 2 cells of `vote_type`.*x.parquet row 2"):
        read_genai_bench(path)
