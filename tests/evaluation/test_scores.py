"""Tables of scores as people write them, sound and not."""

import json

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
    with pytest.raises(ValueError, match=r"2 numeric columns \(raw, aspect:clear\): choose one"):
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
    for used in (lambda: found.scores("score"), found.default_column):
        with pytest.raises(ValueError, match=rf"`score` .* first is '{bad}' in scores\.csv row 1"):
            used()
    made = ScoreTable(name="t", columns={"score": {"a": float(bad), "b": 2.0}})
    with pytest.raises(ValueError, match=r"1 of 2 scores in `score` of t are NaN"):
        made.scores("score")


@pytest.mark.parametrize(
    ("text", "wanted", "cell"),
    [
        ("video,reward,raw\na,1,3\nb,n/a,4\n", None, "`reward` .* 'n/a' in scores.csv row 2"),
        ("video,score,raw\na,?,3\nb,-,4\n", None, "2 of 2 cells of `score` .*'\\?' in .* row 1"),
        ("video,mine,length\na,1,3\nb,two,4\n", None, "`mine` .* 'two' in scores.csv row 2"),
        ('video,score,n\na,"1,5",3\nb,2,4\n', None, "`score` .* '1,5' in scores.csv row 1"),
        ("video,score,n\na,1_0,3\nb,2,4\n", "score+n", "`score` .* '1_0' in scores.csv row 1"),
    ],
)
def test_no_other_column_is_taken_for_one_that_cannot_be_read(tmp_path, text, wanted, cell):
    found = read_scores(write(tmp_path, text))
    with pytest.raises(ValueError, match=f"{cell}.*--column"):
        found.scores(wanted) if wanted else found.default_column()
    other = text.split("\n")[0].split(",")[2]
    assert found.scores(other) == {"a": 3.0, "b": 4.0}, "asked for by name it is there"


def test_an_aspect_that_cannot_be_read_is_not_left_out(tmp_path):
    found = read_scores(write(tmp_path, "video,reward,aspect:clear\na,1,2\nb,2,good\n"))
    assert found.aspects == ("aspect:clear",)
    with pytest.raises(ValueError, match=r"`aspect:clear` .* 'good' in scores\.csv row 2"):
        found.scores("aspect:clear")


def test_the_index_that_pandas_writes_is_no_score(tmp_path):
    found = read_scores(write(tmp_path, "Unnamed: 0,video,mine\n0,a,1\n1,b,2\n"))
    assert found.default_column() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,score\na,1\n", "has no column `video`"),
        ("video,score\n,1\nb,2\n", "1 of 2 cells of `video` are empty or no text"),
        ("video,note\na,good\n", "no column of numbers beside `video`, only video, note"),
        ("video,score\n", "has no rows"),
    ],
)
def test_what_is_no_table_of_scores_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_scores(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_scores(tmp_path / "nowhere.csv")
