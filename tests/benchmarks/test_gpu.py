"""Tables of what was measured on a GPU."""

import json
from pathlib import Path

from benchmarks.gpu import gradients_table, scores_table, show, training_table

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ("all blocks", "1/3", "all blocks, pooled 2x", "1/3, pooled 2x")


def test_tables_of_rows_by_hand():
    rows = [
        {"model": "A", "part": "scores", "what": f"judge, {name}", "ms": ms, "gib": 1.0}
        for name, ms in zip(JUDGES, (100.0, 50.0, 40.0, 20.0), strict=True)
    ]
    assert scores_table(rows).splitlines()[2:] == ["| A | 100 | 50 | 40 | 20 | - | - | - |"]
    rows.append({"model": "A", "part": "scores", "what": "VAE decode", "ms": 250.0, "gib": 2.0})
    assert scores_table(rows).splitlines()[2:] == ["| A | 100 | 50 | 40 | 20 | 250 | 2.5 | 12.5 |"]
    gradient = {"model": "A", "part": "gradients", "what": "judge, 1/3", "recomputing": True,
                "counted gib": 3.0, "ms": 7.4, "gib": 4.0}  # fmt: skip
    assert gradients_table([*rows, gradient]).splitlines()[2:] == [
        "| A | judge, 1/3 | yes | 7 | 4.0 | 0.75 |"
    ]
    steps = [
        {"model": "A", "part": "training", "what": f"LoRA on {place}", "ms": ms, "gib": 5.0}
        for place, ms in (("all", 400.0), ("last", 220.0))
    ]
    assert training_table(steps).splitlines()[3] == "| A | LoRA on last | 220 | 0.55 | 5.0 |"


def test_the_page_shows_what_was_measured():
    found = json.loads((ROOT / "benchmarks/results/gpu_costs.json").read_text())
    page = (ROOT / "docs/costs.md").read_text()
    assert found["device"] in page
    for table in show(found).split("\n\n"):
        assert table in page, (
            "run `python -m benchmarks.gpu --show benchmarks/results/gpu_costs.json`"
        )
