"""The whole study in a few steps: it runs, goes on where it was, and writes its page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(tmp_path, *extra):
    command = [
        sys.executable, "-m", "studies.paper_claims", "--config", "studies/smoke.yaml",
        "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"),
        "--page", str(tmp_path / "page"), *extra,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_study_runs_row_by_row_and_writes_its_page(tmp_path):
    first = run(tmp_path, "--only", "full", "ridge")
    assert first.returncode == 0, first.stderr[-3000:]
    names = sorted(path.stem for path in (tmp_path / "results").glob("*.json"))
    assert names == ["full-0", "ridge-0"]
    record = json.loads((tmp_path / "results" / "full-0.json").read_text())
    assert record["row"] == "full"
    assert set(record) >= {"stage1", "zero_shot", "accuracy", "aspects", "seconds"}
    share, pairs = record["accuracy"]["same/blur"]
    assert 0 <= share <= 1
    assert pairs == 2
    assert record["accuracy"]["short"][1] <= 4
    before = (tmp_path / "results" / "full-0.json").stat().st_mtime_ns

    second = run(tmp_path)
    assert second.returncode == 0, second.stderr[-3000:]
    names = sorted(path.stem for path in (tmp_path / "results").glob("*.json"))
    assert names == [
        "calibrated_negatives-0", "framewise-0", "full-0", "no_discriminator-0", "random_base-0",
        "ridge-0", "temporal_difference-0",
    ]  # fmt: skip
    assert (tmp_path / "results" / "full-0.json").stat().st_mtime_ns == before
    assert "full seed 0" not in second.stdout

    page = (tmp_path / "page" / "README.md").read_text()
    assert "inconclusive (one seed)" in page
    assert "not run yet" in page
    for picture in ("rows.png", "faults.png", "budgets.png", "curves.png"):
        assert picture in page
        assert (tmp_path / "page" / picture).stat().st_size > 5_000


@pytest.mark.slow
def test_a_row_that_fails_is_told_and_the_others_go_on(tmp_path):
    assert run(tmp_path, "--only", "temporal_difference").returncode == 0
    damaged = tmp_path / "work" / "data" / "labelled" / "compared-00000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    result = run(tmp_path, "--only", "ridge", "temporal_difference")
    assert result.returncode == 1
    assert "failed: ridge-0" in result.stdout
    assert not (tmp_path / "results" / "ridge-0.json").exists()
