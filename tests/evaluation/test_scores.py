"""Tables of scores as people write them, sound and not."""

import json
import math

import pytest

from gtsvj_reward.evaluation import ScoreTable, read_scores


def write(tmp_path, text, name="scores.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_numeric_columns_are_read_and_others_left(tmp_path):
    path = write(
        tmp_path,
        "video,reward,raw,aspect:clear,trajectory,note,blank\n"
        'a.mp4,1.5,-2,3,"[1, 2]",fine,\n'
        'b.mp4,-1e-3,,4,"[3]",7,\n',
    )
    table = read_scores(path)
    assert table.columns == {
        "reward": {"a.mp4": 1.5, "b.mp4": -0.001},
        "raw": {"a.mp4": -2.0},
        "aspect:clear": {"a.mp4": 3.0, "b.mp4": 4.0},
    }
    assert (table.name, table.aspects) == ("scores.csv", ("aspect:clear",))
    assert table.videos == ("a.mp4", "b.mp4")


def test_jsonl_is_read_likewise(tmp_path):
    rows = [
        {"video": "a", "score": 1, "ok": True, "steps": [1.0]},
        {"video": "b", "score": 2.5, "ok": False, "steps": []},
        {"video": "c", "score": None, "ok": True, "steps": []},
    ]
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "scores.jsonl")
    assert read_scores(path, name="mine").columns == {"score": {"a": 1.0, "b": 2.5}}
    assert read_scores(path, name="mine").name == "mine"


def table(*names):
    return ScoreTable(name="t", columns={name: {"a": 1.0, "b": 2.0} for name in names})


def test_the_default_column():
    assert table("x", "score", "reward").default_column() == "reward"
    assert table("x", "score").default_column() == "score"
    assert table("x").default_column() == "x"
    with pytest.raises(ValueError, match=r"2 numeric columns \(raw, aspect:clear\): say which"):
        table("raw", "aspect:clear").default_column()


def test_an_empty_reward_column_is_none(tmp_path):
    assert read_scores(write(tmp_path, "video,reward,raw\na,,1\nb,,2\n")).default_column() == "raw"


def test_sums_of_columns():
    sums = ScoreTable(
        name="t", columns={"x": {"a": 1.0, "b": 2.0}, "y": {"b": 0.5, "a": 3.0}, "x+z": {"a": 9.0}}
    )
    assert sums.scores("x+y") == {"a": 4.0, "b": 2.5}
    assert sums.scores("x+z") == {"a": 9.0}, "a column of that very name comes first"
    with pytest.raises(ValueError, match="no numeric column 'z', it has: x, y"):
        sums.scores("y+z")
    partial = ScoreTable(name="t", columns={"x": {"a": 1.0, "b": 2.0}, "y": {"b": 0.5}})
    assert partial.scores("x+y") == {"b": 2.5}


def test_a_video_twice_with_one_score_is_fine(tmp_path):
    path = write(tmp_path, "video,score\na,1\nb,2\na,1.0\n")
    assert read_scores(path).columns["score"] == {"a": 1.0, "b": 2.0}


def test_a_video_twice_with_two_scores_is_refused(tmp_path):
    path = write(tmp_path, "video,score,same\na,1,0\nb,2,0\na,3,0\n")
    with pytest.raises(ValueError, match=r"1 rows repeat .* `score`: a \(1 and 3\)"):
        read_scores(path)


@pytest.mark.parametrize("bad", ["nan", "inf", "-Infinity"])
def test_scores_that_are_not_finite_are_refused_when_used(tmp_path, bad):
    found = read_scores(write(tmp_path, f"video,score,other\na,{bad},1\nb,2,2\n"))
    assert found.scores("other") == {"a": 1.0, "b": 2.0}
    assert not math.isfinite(found.columns["score"]["a"])
    with pytest.raises(ValueError, match=r"1 of 2 scores in `score` of scores\.csv are NaN"):
        found.scores("score")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,score\na,1\n", "has no column `video`"),
        ("video,score\n,1\nb,2\n", "1 rows name no video in `video`: scores.csv row 1"),
        ("video,note\na,good\n", "no column of numbers beside `video`, only video, note"),
        ("video,score\na,1\nb,two\n", "no column of numbers"),
        ("video,score\n", "has no rows"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_scores(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_scores(tmp_path / "nowhere.csv")
