"""A probability instead of a side: the plain format, shares of votes, rankings."""

import json

import pytest

from gtsvj_reward.annotations import (
    Comparison,
    read_comparisons,
    read_datapoint,
    read_ranked_sets,
    read_rankings,
    read_rapidata,
    write_comparisons,
)
from tests.annotations.rows import (
    fraction_row,
    ranking_rows,
    write_csv,
    write_json,
    write_parquet,
)

PAIR = {"video_a": "a.mp4", "video_b": "b.mp4"}


def test_labels_and_probabilities_of_one_file(tmp_path):
    rows = [
        {**PAIR, "label": "", "probability": "0.8", "probability_x": "0.5", "weight": "3"},
        {**PAIR, "label": "tie", "probability": "", "probability_x": "0.25", "weight": "0.5"},
        {**PAIR, "label": "", "probability": "", "probability_x": "", "weight": "1"},
    ]
    found = read_comparisons(write_csv(tmp_path / "x.csv", rows))
    assert found.dimensions == ("x", "overall")
    assert [row.labels for row in found.rows] == [
        {"overall": 1, "x": 0},
        {"overall": 0, "x": -1},
        {},
    ]
    assert [row.probabilities for row in found.rows] == [
        {"overall": 0.8, "x": 0.5},
        {"x": 0.25},
        {},
    ]
    assert [row.weight for row in found.rows] == [3.0, 0.5, 1.0]
    assert found.skipped == {"`label` is empty": 1, "`probability_x` is empty": 1}
    for suffix in (".csv", ".jsonl"):
        write_comparisons(tmp_path / f"y{suffix}", found)
        back = read_comparisons(tmp_path / f"y{suffix}")
        assert (back.rows, back.dimensions) == (found.rows, found.dimensions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": "1.2"}, r"1 of 2 cells of `probability` are outside the scale 0 to 1"),
        ({"probability": "half"}, r"1 of 2 cells of `probability` are not finite numbers"),
        (
            {"label": "A"},
            r"`probability` are given with a label: a row has one or the other.*row 2",
        ),
        ({"weight": "0"}, r"1 of 2 cells of `weight` are not above 0"),
        ({"weight": ""}, r"1 of 2 cells of `weight` are not above 0"),
    ],
)
def test_unsound_probabilities(tmp_path, changes, message):
    row = {**PAIR, "label": "", "probability": "0.8", "weight": "1"}
    with pytest.raises(ValueError, match=message):
        read_comparisons(write_csv(tmp_path / "x.csv", [row, {**row, **changes}]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"overall": -1}}, r"r: 'overall' has the probability 0.8 and the label -1"),
        ({"labels": {}}, "the label None: expected the likelier side, 1"),
        ({"probabilities": {"overall": 1.5}}, r"must lie in 0..1, got 1.5"),
        ({"weight": 0.0}, "weight must be above 0"),
    ],
)
def test_a_comparison_is_consistent(changes, message):
    known = {"labels": {"overall": 1}, "probabilities": {"overall": 0.8}}
    with pytest.raises(ValueError, match=message):
        Comparison(row="r", **PAIR, **{**known, **changes})


def test_shares_of_votes(tmp_path):
    none = {f"weighted_results{side}_Coherence": None for side in (1, 2)}
    rows = [fraction_row(), fraction_row(**none)]
    found = read_rapidata(write_parquet(tmp_path / "x.parquet", rows))
    assert found.dimensions == ("Coherence", "Alignment", "overall")
    first, second = found.rows
    assert first.probabilities == {"overall": 0.75, "Coherence": 0.5, "Alignment": 1.0}
    assert first.labels == {"overall": 1, "Coherence": 0, "Alignment": 1}
    assert (first.video_a, first.prompt, first.weight) == ("a/1.mp4", "p", 1.0)
    assert second.labels == {"overall": 1, "Alignment": 1}
    assert sum(found.skipped.values()) == 1


def test_videos_in_the_file_are_named_by_their_paths(tmp_path):
    row = fraction_row(model1="Veo", model2="Kling")
    for side in (1, 2):
        del row[f"file_name{side}"]
        row[f"video{side}"] = {"bytes": b"...", "path": f"{side}.mp4"}
    (found,) = read_datapoint(write_parquet(tmp_path / "x.parquet", [row])).rows
    assert (found.video_a, found.video_b, found.model_b) == ("1.mp4", "2.mp4", "Kling")
    row["video2"]["path"] = None
    with pytest.raises(ValueError, match="1 of 1 cells of `video2` hold a video without its name"):
        read_datapoint(write_parquet(tmp_path / "x.parquet", [row]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weighted_results2_Preference": 0.2}, "1 of 2 .* do not add up to 1"),
        ({"weighted_results2_Preference": None}, "1 of 2 .* are not both there"),
        ({"weighted_results1_Preference": -0.1}, "outside the scale 0 to 1"),
        ({"file_name1": ""}, "`file_name1` are empty"),
    ],
)
def test_unsound_shares(tmp_path, changes, message):
    rows = [fraction_row(), fraction_row(**changes)]
    with pytest.raises(ValueError, match=message):
        read_rapidata(write_parquet(tmp_path / "x.parquet", rows))


def test_a_file_without_shares_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no column `weighted_results1_<question>`"):
        read_rapidata(write_csv(tmp_path / "x.csv", [{**PAIR, "label": "A"}]))
    row = {k: v for k, v in fraction_row().items() if k != "weighted_results2_Coherence"}
    with pytest.raises(ValueError, match="no column `weighted_results2_Coherence`"):
        read_rapidata(write_parquet(tmp_path / "x.parquet", [row]))


def test_rankings_are_shares_of_pairs(tmp_path):
    found = read_rankings(write_csv(tmp_path / "x.csv", ranking_rows()))
    # x and y: one vote each. x and z: two for x and a tie. y and z: both for y.
    shares = [(row.video_a + row.video_b, row.labels, row.probabilities) for row in found.rows]
    assert shares == [
        ("xy", {"overall": 0}, {"overall": 0.5}),
        ("xz", {"overall": 1}, {"overall": pytest.approx(5 / 6)}),
        ("yz", {"overall": 1}, {}),
    ]
    assert {row.group for row in found.rows} == {"7"}
    # Three videos are put in order by two comparisons.
    assert sum(row.weight for row in found.rows) == pytest.approx(2)
    assert found.skipped == {"`rank` is empty": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(rank="best"), "`rank` are not finite numbers"),
        (lambda rows: rows[0].update(rank="0"), "`rank` are below 1, the best"),
        (lambda rows: rows[3].update(rater="ann"), r"1 rows rank a video again.*x in set '7'"),
        (lambda rows: rows[0].update(prompt="q"), r"8 rows have another prompt"),
        (lambda rows: rows[0].update(set="8"), r"1 of 2 sets have fewer than two videos: 8"),
    ],
)
def test_unsound_rankings(tmp_path, change, message):
    rows = ranking_rows()
    change(rows)
    with pytest.raises(ValueError, match=message):
        read_rankings(write_csv(tmp_path / "x.csv", rows))


SETS = {"prompt": "p", "video1": "x", "video2": "y", "video3": "z"}


@pytest.mark.parametrize(
    ("holds", "cell"),
    [("ranks", [[2, 3, 1], [1, 2, 3]]), ("order", [[3, 1, 2], [1, 2, 3]])],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_sets_in_rows(tmp_path, holds, cell, as_text):
    row = {**SETS, "q": json.dumps(cell) if as_text else cell}
    found = read_ranked_sets(
        write_json(tmp_path / "x.json", [row]),
        {"quality": "q"},
        holds=holds,
        videos=["video1", "video2", "video3"],
    )
    # The first person says z, x, y; the second x, y, z.
    assert [(row.labels["quality"], row.probabilities) for row in found.rows] == [
        (1, {}),
        (0, {"quality": 0.5}),
        (0, {"quality": 0.5}),
    ]
    assert found.dimensions == ("quality",)


@pytest.mark.parametrize("cell", [[[1, 2]], [[0, 1, 2]], [[1, 1, 2]], [1, 2, 3], "x", None, 1.7])
def test_cells_that_are_no_rankings(tmp_path, cell):
    path = write_json(tmp_path / "x.json", [{**SETS, "q": cell}, {**SETS, "q": [[1, 2, 3]]}])
    with pytest.raises(ValueError, match=r"1 of 2 cells of `q` are not lists of rankings"):
        read_ranked_sets(
            path, {"quality": "q"}, holds="ranks", videos=["video1", "video2", "video3"]
        )
