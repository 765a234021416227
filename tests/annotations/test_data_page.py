"""The examples of docs/data.md run, on files as they describe them."""

import re
from pathlib import Path

import pytest

from gtsvj_reward.annotations import COMPARISON_FORMATS, RATING_FORMATS
from tests.annotations.rows import (
    BENCHMARK_ROWS,
    answer_row,
    latent_folder,
    rating_row,
    ratings_schema,
    vote_row,
    write_csv,
    write_parquet,
)

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def files(tmp_path, monkeypatch):
    pair = {"video_a": "v/a.mp4", "video_b": "v/b.mp4"}
    mos = {f"MOS_{side}_VQ": "2.5" for side in "AB"}
    rated = [rating_row(1, letters=0), rating_row(2, letters=2)]
    write_csv(
        tmp_path / "comparisons.csv",
        [{**pair, "label_VQ": 1, "label": 0}, {**pair, "video_b": "v/c.mp4", "label_VQ": -1}],
    )
    write_csv(tmp_path / "ratings.csv", [{"video": "v/a.mp4", "sharpness": 4, "note": "x"}])
    latent_folder(tmp_path / "latents", ["a.mp4", "b.mp4"])
    hub = tmp_path / "VisionRewardDB-Video"
    write_parquet(hub / "train" / "train-00000-of-00001.parquet", rated, ratings_schema())
    write_parquet(hub / "test" / "test-00000-of-00001.parquet", [answer_row(1, "video1")])
    write_csv(tmp_path / "videogen-rewardbench.csv", BENCHMARK_ROWS)
    write_csv(tmp_path / "train.csv", [{**row, **mos} for row in BENCHMARK_ROWS])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [vote_row(1, "leftvote")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_run(files, capsys):
    assert len(EXAMPLES) == 8
    for example in EXAMPLES:
        if 'read_visionreward_ratings("VisionRewardDB-Video/train")' in example:
            # A zero is refused by default; the next example reads it.
            with pytest.raises(ValueError, match="`letters` are outside the scale"):
                exec(example, {})
            rated = [rating_row(1), rating_row(2)]
            path = files / "VisionRewardDB-Video" / "train" / "train-00000-of-00001.parquet"
            write_parquet(path, rated, ratings_schema())
        exec(example, {})
        printed = capsys.readouterr().out.splitlines()
        for said in re.findall(r"print\(.*\)  # (.*)", example):
            assert any(said.removesuffix(" ...") in line for line in printed), (said, printed)
    assert (files / "ratings-21.jsonl").is_file()


def test_the_page_lists_the_formats():
    listed = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|", PAGE, re.MULTILINE)
    assert {name for name, comparisons, _ in listed if comparisons.startswith("`read")} == set(
        COMPARISON_FORMATS
    )
    assert {name for name, _, ratings in listed if ratings.startswith("`read")} == set(
        RATING_FORMATS
    )
