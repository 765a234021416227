"""The plain formats: what is written is read back, from every reader and for any text."""

import json
import math

import pytest
from hypothesis import given, settings, strategies as st

from gtsvj_reward.annotations import (
    COMPARISON_FORMATS,
    RATING_FORMATS,
    VISIONREWARD_ASPECTS,
    AspectScale,
    Comparison,
    Comparisons,
    Rating,
    Ratings,
    read_comparisons,
    read_labelled_comparisons,
    read_ratings,
    write_comparisons,
    write_ratings,
)
from tests.annotations.rows import (
    BENCHMARK_ROWS,
    answer_row,
    feedback2_row,
    feedback_row,
    fraction_row,
    ranking_rows,
    rating_row,
    ratings_schema,
    vote_row,
    write_csv,
    write_json,
    write_jsonl,
    write_parquet,
    write_videodpo,
)

PAIR = {"video_a": "a.mp4", "video_b": "b.mp4"}
SUFFIXES = st.sampled_from([".csv", ".jsonl"])
# Surrogates are no text in UTF-8, and csv in Python 3.10 reads no NUL.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
names = words.filter(lambda text: "://" not in text)


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            st.tuples(names.map("a".__add__), names.map("b".__add__)),
            st.lists(st.sampled_from([None, -1, 0, 1]), min_size=2, max_size=2),
            st.none() | words,
            st.none() | words,
        ),
        min_size=1,
        max_size=4,
    ),
    suffix=SUFFIXES,
)
def test_comparisons_round_trip(tmp_path_factory, data, suffix):
    rows = tuple(
        Comparison(
            row=f"row {number}",
            video_a=videos[0],
            video_b=videos[1],
            labels={
                dimension: label
                for dimension, label in zip(("a, b", "overall"), labels, strict=True)
                if label is not None
            },
            prompt=prompt,
            model_b=model,
            group=prompt,
        )
        for number, (videos, labels, prompt, model) in enumerate(data)
    )
    path = tmp_path_factory.mktemp("x") / f"x{suffix}"
    write_comparisons(path, Comparisons(name="n", rows=rows, dimensions=("a, b", "overall")))
    back = read_comparisons(path)
    assert back.rows == rows
    assert back.dimensions == ("a, b", "overall")
    unlabelled = sum(label is None for _, labels, _, _ in data for label in labels)
    assert sum(back.skipped.values()) == unlabelled


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(
        st.tuples(
            names.map("a".__add__),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.none() | words,
        ),
        min_size=1,
        max_size=4,
    ),
    suffix=SUFFIXES,
)
def test_ratings_round_trip(tmp_path_factory, data, suffix):
    rows = tuple(
        Rating(
            row=f"row {number}",
            video=video,
            scores={"x": 1.0} if score is None else {"x": 1.0, "y, z": score},
            prompt=prompt,
            group=prompt,
        )
        for number, (video, score, prompt) in enumerate(data)
    )
    path = tmp_path_factory.mktemp("x") / f"x{suffix}"
    write_ratings(path, Ratings(name="n", rows=rows, aspects=("x", "y, z")))
    back = read_ratings(path)
    assert back.rows == rows
    assert back.aspects == ("x", "y, z")


@pytest.fixture
def data_sets(tmp_path):
    """A file of every format, by kind and name."""
    tests = write_parquet(
        tmp_path / "test.parquet", [answer_row(1, "tie"), answer_row(2, "video2")]
    )
    votes = [vote_row(1, "bothbad_vote"), vote_row(2, "leftvote")]
    mos = {f"MOS_{side}_{name}": "2.5" for side in "AB" for name in ("VQ", "MQ")}
    training = [{**BENCHMARK_ROWS[0], **mos}, {**BENCHMARK_ROWS[1], **mos, "MOS_A_VQ": "0.0"}]
    rated = [rating_row(1, letters=None, alignment=5), rating_row(2)]
    plain_pair = {"row": "r", **PAIR, "label_x": 1, "label": "", "prompt": " ", "model_a": "m"}
    plain_rating = {"row": "r", "video": "v", "x": "0.1", "y": "", "prompt": "p", "model": "m"}
    return {
        "comparisons": {
            "visionreward": tests,
            "monetbench": tests,
            "videogen-rewardbench": write_csv(tmp_path / "bench.csv", BENCHMARK_ROWS),
            "videoreward-train": write_csv(tmp_path / "train.csv", training),
            "genai-bench": write_parquet(tmp_path / "genai.parquet", votes),
            "rapidata": write_parquet(tmp_path / "rapidata.parquet", [fraction_row()]),
            "datapoint": write_parquet(
                tmp_path / "datapoint.parquet", [fraction_row(model1="m", model2="n")]
            ),
            "rankings": write_csv(tmp_path / "rankings.csv", ranking_rows()),
            "videodpo": write_videodpo(tmp_path),
            "plain": write_csv(tmp_path / "pairs.csv", [plain_pair]),
        },
        "ratings": {
            "visionreward": write_parquet(tmp_path / "t.parquet", rated, ratings_schema()),
            "videoreward-train": tmp_path / "train.csv",
            "videofeedback": write_parquet(tmp_path / "vf.parquet", [feedback_row("1")]),
            "videofeedback2": write_json(tmp_path / "vf2.json", [feedback2_row()]),
            "plain": write_csv(tmp_path / "ratings.csv", [plain_rating]),
        },
    }


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_reader_round_trips(tmp_path, data_sets, suffix):
    assert data_sets["comparisons"].keys() == COMPARISON_FORMATS.keys()
    assert data_sets["ratings"].keys() == RATING_FORMATS.keys()
    for name, path in data_sets["comparisons"].items():
        comparisons = COMPARISON_FORMATS[name](path)
        write_comparisons(tmp_path / f"out{suffix}", comparisons)
        back = read_comparisons(tmp_path / f"out{suffix}")
        assert back.rows == comparisons.rows, name
        assert back.dimensions == comparisons.dimensions, name
    for name, path in data_sets["ratings"].items():
        ratings = RATING_FORMATS[name](path)
        write_ratings(tmp_path / f"out{suffix}", ratings)
        back = read_ratings(tmp_path / f"out{suffix}", scales=ratings.scales or None)
        assert back.rows == ratings.rows, name
        assert (back.aspects, back.scales) == (ratings.aspects, ratings.scales), name


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *(("1", 1), ("+1", 1), ("1.0", 1), (" a", 1), ("A", 1)),
        *(("-1", -1), ("-1.0", -1), ("b", -1)),
        *(("0", 0), ("0.0", 0), ("-0.0", 0), ("Same", 0), ("tie", 0), ("Equal", 0), ("draw", 0)),
    ],
)
def test_label_spellings(tmp_path, label, expected):
    rows = [{**PAIR, "label": label}, {**PAIR, "label": "B"}]
    comparisons = read_comparisons(write_csv(tmp_path / "x.csv", rows))
    assert comparisons.rows[0].labels == {"overall": expected}
    assert comparisons.rows[0].row == "x.csv row 1"


def test_groups_are_text_or_whole_numbers(tmp_path):
    rows = [{**PAIR, "label": 1, "group": group} for group in (3, None, 4)]
    for path in (
        write_jsonl(tmp_path / "x.jsonl", rows),
        write_parquet(tmp_path / "x.parquet", [{**row, "group": g} for row, g in
                                               zip(rows, (3.0, None, 4.0), strict=True)]),
        write_csv(tmp_path / "x.csv", rows),
    ):  # fmt: skip
        assert [row.group for row in read_comparisons(path).rows] == ["3", None, "4"]
    ratings = read_ratings(write_csv(tmp_path / "r.csv", [{"video": "v", "x": 1, "group": "s"}]))
    assert (ratings.rows[0].group, ratings.aspects) == ("s", ("x",))
    with pytest.raises(ValueError, match="`group` are neither text nor whole numbers"):
        read_comparisons(write_jsonl(tmp_path / "x.jsonl", [{**PAIR, "label": 1, "group": 1.5}]))


def labelled(path, *labels):
    return write_csv(path, [{**PAIR, "label": label} for label in labels])


def test_zeros_may_mean_a_tie_or_the_other_video(tmp_path):
    path = labelled(tmp_path / "x.csv", "1", "0.0", "", "1")
    message = r"x.csv: `label` has 0 \(1 times\) and 1 \(2 times\) .* `--labels 0=B` or"
    with pytest.raises(ValueError, match=message):
        read_comparisons(path)
    for meaning, expected in (("B", -1), ("tie", 0)):
        rows = read_labelled_comparisons(path, "plain", [f"0={meaning}"]).rows
        assert [row.labels.get("overall") for row in rows] == [1, expected, None, 1]
    for sound in (("1", "0", "-1"), ("A", "tie"), ("1", "1"), ("1", "same")):
        assert len(read_comparisons(labelled(tmp_path / "x.csv", *sound)).rows) == len(sound)
    rows = [{**PAIR, "label_x": "0", "label_y": "B"}, {**PAIR, "label_x": "1", "label_y": "A"}]
    assert read_comparisons(write_csv(tmp_path / "x.csv", rows)).rows[0].labels["x"] == 0


def test_words_can_be_given_a_meaning(tmp_path):
    path = labelled(tmp_path / "x.csv", "1", "2", "0.50", "Links")
    with pytest.raises(ValueError, match=r"'2' \(1 times\).*'0\.50'|--labels 2=B 0\.5=tie"):
        read_comparisons(path)
    rows = read_labelled_comparisons(path, "plain", ["2=B", "0.5=tie", "links=A"]).rows
    assert [row.labels["overall"] for row in rows] == [1, -1, 0, 1]
    for wrong, message in (
        (["2"], "--labels takes LABEL=A"),
        (["2=B", "2=A"], "--labels takes LABEL=A"),
        (["2=left"], "can mean A, B or tie, got 2=left"),
    ):
        with pytest.raises(ValueError, match=message):
            read_labelled_comparisons(path, "plain", wrong)
    with pytest.raises(ValueError, match="genai-bench has labels of its own"):
        read_labelled_comparisons(path, "genai-bench", ["2=B"])


def test_files_of_spreadsheets(tmp_path, caplog):
    path = tmp_path / "x.csv"
    text = 'video;clear;prompt\r\nv;4,5;"a, b"\r\nw;3;1,5 m\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = read_ratings(path).rows
    assert [(row.scores, row.prompt) for row in rows] == [
        ({"clear": 4.5}, "a, b"),
        ({"clear": 3.0}, "1,5 m"),
    ]
    assert "x.csv: read as cells between semicolons" in caplog.text
    assert "x.csv: decimal commas in `clear` read as points" in caplog.text
    path.with_suffix(".tsv").write_text("video\tclear\nv;w\t4\n")
    assert read_ratings(path.with_suffix(".tsv")).rows[0].video == "v;w"
    path.write_text("video,clear;text\na;b,4\n")
    assert read_ratings(path).rows[0].scores == {"clear;text": 4.0}


def test_plain_parquet_and_other_columns(tmp_path):
    rows = [{**PAIR, "label": 1, "fps": 8.0}, {**PAIR, "label": None, "fps": 8.0}]
    comparisons = read_comparisons(write_parquet(tmp_path / "x.parquet", rows))
    assert [row.labels for row in comparisons.rows] == [{"overall": 1}, {}]
    assert comparisons.skipped == {"`label` is empty": 1}
    assert comparisons.rows[0].prompt is None


def test_overall_comes_last(tmp_path):
    row = {"label_overall": 1, "label_x": -1, **PAIR}
    comparisons = read_comparisons(write_csv(tmp_path / "x.csv", [row]))
    assert comparisons.dimensions == ("x", "overall")
    assert comparisons.rows[0].labels == {"x": -1, "overall": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR, "no column `label`"),
        ({**PAIR, "label": 1, "label_overall": 1}, "`label` and `label_overall`"),
        ({**PAIR, "label": "left"}, "not a known label"),
        ({**PAIR, "label": 2}, "not a known label"),
        ({"video_a": "a", "label": 1}, "no column `video_b`"),
        ({"video_a": "a", "video_b": "a", "label": 1}, "the same video as `video_a`"),
        ({"video_a": "a", "video_b": "/", "label": 1}, "`video_b` name no video"),
        ({"video_a": "x://[", "video_b": "b", "label": 1}, "`video_a` name no video"),
        ({**PAIR, "label": 1, "row": ""}, "`row` must tell rows apart"),
    ],
)
def test_unsound_comparisons(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_comparisons(write_csv(tmp_path / "x.csv", [row]))


def test_ids_that_come_twice(tmp_path):
    rows = [{**PAIR, "label": 1, "row": "r"}] * 2
    with pytest.raises(ValueError, match="`row` must tell rows apart, 1 of 2"):
        read_comparisons(write_csv(tmp_path / "x.csv", rows))


def test_ratings_with_scales(tmp_path):
    rows = [
        {"video": "v", "clear": "5", "note": "blurred"},
        {"video": "w", "clear": "", "note": ""},
    ]
    path = write_csv(tmp_path / "x.csv", rows)
    with pytest.raises(ValueError, match="`note` are not finite numbers"):
        read_ratings(path)
    scale = AspectScale("clear", 1, 5)
    ratings = read_ratings(path, scales=[scale])
    assert [row.scores for row in ratings.rows] == [{"clear": 5.0}, {}]
    assert (ratings.aspects, ratings.scales) == (("clear",), (scale,))
    assert ratings.skipped == {"`clear` is empty": 1}
    with pytest.raises(ValueError, match=r"outside the scale 1 to 4.*x.csv row 1"):
        read_ratings(path, scales=[AspectScale("clear", 1, 4)])
    with pytest.raises(ValueError, match="no column `alignment`, `composition`"):
        read_ratings(path, scales=VISIONREWARD_ASPECTS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "v", "prompt": "p"}, "has no aspects"),
        ({"": "0", "video": "v", "x": "1"}, "index=False"),
        ({"Unnamed: 0": "0", "video": "v", "x": "1"}, "`Unnamed: 0`.*index=False"),
        ({"__index_level_0__": "0", "video": "v", "x": "1"}, "`__index_level_0__`.*index=False"),
        ({"x": "1"}, "no column `video`"),
        ({"video": "v", "x": "NaN"}, "not finite numbers"),
        ({"video": "", "x": "1"}, "`video` are empty"),
    ],
)
def test_unsound_ratings(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_ratings(write_csv(tmp_path / "x.csv", [row]))


def test_nan_in_jsonl_is_no_score(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"video": "v", "x": math.nan}])
    assert "NaN" in path.read_text()
    with pytest.raises(ValueError, match=r"`x` are not finite numbers.*x.jsonl row 1"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"overall": 2}}, "labels other than"),
        ({"labels": {"VQ": 1}}, r"has \{'VQ': 1\}, expected finite values of \('overall',\)"),
        ({"prompt": ""}, "'r' has an empty text"),
        ({"row": "s"}, "'s' comes twice"),
    ],
)
def test_comparisons_that_would_not_read_back(tmp_path, changes, message):
    row = {"row": "r", **PAIR, "labels": {"overall": 1}}
    rows = (Comparison(**{**row, "row": "s"}), Comparison(**{**row, **changes}))
    with pytest.raises(ValueError, match=message):
        write_comparisons(
            tmp_path / "x.csv", Comparisons(name="n", rows=rows, dimensions=("overall",))
        )
    assert list(tmp_path.iterdir()) == []


def test_ratings_that_would_not_read_back(tmp_path):
    def written(aspect, score):
        row = Rating(row="r", video="v", scores={aspect: score})
        write_ratings(tmp_path / "x.jsonl", Ratings(name="n", rows=(row,), aspects=(aspect,)))

    with pytest.raises(ValueError, match="cannot be called"):
        written("prompt", 1.0)
    with pytest.raises(ValueError, match="finite"):
        written("x", math.nan)
    assert list(tmp_path.iterdir()) == []
    written("x", 1.0)
    assert json.loads((tmp_path / "x.jsonl").read_text())["x"] == 1.0
