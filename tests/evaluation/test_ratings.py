"""Scores of aspects against ratings of clips."""

import json

import pytest

from gtsvj_reward.annotations import Rating, Ratings
from gtsvj_reward.cli import main
from gtsvj_reward.evaluation import EvaluationSettings, ScoreTable, evaluate_ratings
from gtsvj_reward.evaluation.ratings_page import write_ratings

QUICK = EvaluationSettings(resamples=20)


def ratings_of(scores, **changes):
    rows = tuple(
        Rating(row=str(i), video=f"v/{i}.mp4", scores={"clear": score, "calm": 1.0}, **changes)
        for i, score in enumerate(scores)
    )
    return Ratings(name="r", rows=rows, aspects=("clear", "calm", "sharp"))


def table_of(scores, column="aspect:clear"):
    return ScoreTable(name="t", columns={column: {f"{i}.mp4": s for i, s in enumerate(scores)}})


def test_golden():
    # Ranks of the ratings 1, 2, 3, 4 and of the scores 1, 2, 4, 3: 1 - 6 * 2 / (4 * 15) = 0.8.
    # Both have mean 2.5 and the same spread, so that Pearson's is 0.8 too. Errors 0, 0, 1, 1; the
    # median is 2 (the lower of two), whose errors are 1, 0, 1, 2.
    result = evaluate_ratings(ratings_of([1, 2, 3, 4]), table_of([1, 2, 4, 3]), settings=QUICK)
    (clear,) = result.aspects
    assert clear.spearman == pytest.approx(0.8)
    assert clear.pearson == pytest.approx(0.8)
    assert (clear.mean_error, clear.constant_error) == (0.5, 1.0)
    assert (clear.ratings, clear.groups, clear.column) == (4, 4, "aspect:clear")
    assert result.left_out_aspects == ("calm", "sharp")


def test_whole_groups_are_drawn_and_what_is_undefined_is_said():
    scores = [0, 1, 2, 3, 4, 5]
    result = evaluate_ratings(ratings_of(scores), table_of(scores), settings=QUICK)
    assert result.aspects[0].interval == pytest.approx((1.0, 1.0))
    (grouped,) = evaluate_ratings(
        ratings_of(scores, group="g"), table_of(scores), settings=QUICK
    ).aspects
    assert (grouped.groups, grouped.interval) == (1, None)
    assert grouped.undefined
    columns = {"calm": "aspect:clear"}
    result = evaluate_ratings(ratings_of(scores), table_of(scores), columns=columns, settings=QUICK)
    calm = result.aspects[1]
    assert calm.spearman is None
    assert "correlation with a constant is undefined" in calm.undefined


def test_a_page_counts_clips_whose_ratings_read_alike(tmp_path):
    # Two ratings are 1 in four digits: scores of mean (0.25 + 0.5) / 2 = 0.375.
    ratings, table = ratings_of([1.00001, 1.00002, 2, 2]), table_of([0.25, 0.5, 3, 4])
    result = evaluate_ratings(ratings, table, settings=QUICK)
    page = write_ratings(result, ratings, table, tmp_path).read_text()
    assert all(f">{cell}</td>" in page for cell in ("0.375", "0.250", "0.500"))


def test_what_is_missing_is_refused_or_counted():
    ratings = ratings_of([1, 2, 3])
    with pytest.raises(ValueError, match=r"1 of 3 videos of r have no score .* v/2\.mp4"):
        evaluate_ratings(ratings, table_of([1, 2]))
    result = evaluate_ratings(ratings, table_of([1, 2]), allow_missing=True, settings=QUICK)
    assert (result.evaluated, result.rows, result.missing_videos) == (2, 3, ("v/2.mp4",))
    with pytest.raises(ValueError, match="no column for any of clear, calm, sharp"):
        evaluate_ratings(ratings, table_of([1, 2, 3], "reward"))
    with pytest.raises(ValueError, match="no aspect bright"):
        evaluate_ratings(ratings, table_of([1, 2, 3]), columns={"bright": "aspect:clear"})


def test_from_files_to_files(tmp_path, capsys):
    rows = [(f"{i}.mp4", i % 5, i % 3) for i in range(12)]
    lines = ["video,clear,calm", *(f"{v},{a},{b}" for v, a, b in rows)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines) + "\n")
    lines = ["video,reward,aspect:clear,other", *(f"{v},1,{a},{-b}" for v, a, b in rows)]
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    words = ["evaluate", "--benchmark", "ratings", "--data", str(tmp_path / "ratings.csv"),
             "--scores", str(tmp_path / "scores.csv"), "--out", str(tmp_path / "out"),
             "--resamples", "5", "--column_for", "calm=other"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    assert "n = 12 of 12 ratings (ratings.csv), scored by scores.csv" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "ratings.json").read_text())["aspects"]
    assert [(item["aspect"], item["column"]) for item in found] == [
        ("clear", "aspect:clear"), ("calm", "other"),
    ]  # fmt: skip
    assert [item["spearman"] for item in found] == pytest.approx([1.0, -1.0])
    assert 'aria-label="12 values of other' in (tmp_path / "out" / "index.html").read_text()
    assert "| clear | aspect:clear | 12 |" in (tmp_path / "out" / "ratings.md").read_text()
    assert main([*words, "--column", "other"]) == 1
    assert "--column_for ASPECT=COLUMN" in capsys.readouterr().err
