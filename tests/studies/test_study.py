"""The whole study in a few steps: it runs, goes on where it was, and writes its page."""

import json
from pathlib import Path

import pytest

from studies.paper_claims import main

CONFIG = Path(__file__).parents[2] / "studies" / "smoke.yaml"


def run(folder, *extra):
    """The study in this process, where importing torch costs nothing once more; its status."""
    words = ["--config", CONFIG, "--work", folder / "work", "--results", folder / "results"]
    return main([str(word) for word in (*words, "--page", folder / "page", *extra)])


@pytest.mark.slow
def test_the_study_runs_row_by_row_and_writes_its_page(tmp_path, capsys, unchecked):
    assert run(tmp_path, "--only", "full", "ridge") == 0
    names = sorted(path.stem for path in (tmp_path / "results").glob("*.json"))
    assert names == ["full-0", "ridge-0"]
    record = json.loads((tmp_path / "results" / "full-0.json").read_text())
    assert record["row"] == "full"
    assert set(record) >= {"stage1", "zero_shot", "accuracy", "aspects", "seconds"}
    share, pairs = record["accuracy"]["same/blur"]
    assert 0 <= share <= 1
    assert pairs == 1
    assert record["accuracy"]["short"][1] <= 2
    before = (tmp_path / "results" / "full-0.json").stat().st_mtime_ns

    capsys.readouterr()
    assert run(tmp_path) == 0
    names = sorted(path.stem for path in (tmp_path / "results").glob("*.json"))
    assert names == [
        "calibrated_negatives-0", "framewise-0", "full-0", "no_discriminator-0", "random_base-0",
        "ridge-0", "temporal_difference-0",
    ]  # fmt: skip
    assert (tmp_path / "results" / "full-0.json").stat().st_mtime_ns == before
    assert "full seed 0" not in capsys.readouterr().out

    page = (tmp_path / "page" / "README.md").read_text()
    assert "inconclusive (one seed)" in page
    assert "not run yet" in page
    for picture in ("rows.png", "faults.png", "budgets.png", "curves.png"):
        assert picture in page
        assert (tmp_path / "page" / picture).stat().st_size > 5_000

    # A row that fails is told, and the others go on.
    (tmp_path / "results" / "ridge-0.json").unlink()
    damaged = tmp_path / "work" / "data" / "labelled" / "compared-00000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert run(tmp_path, "--only", "ridge", "temporal_difference") == 1
    assert "failed: ridge-0" in capsys.readouterr().out
    assert not (tmp_path / "results" / "ridge-0.json").exists()
