"""The alignment study in a few steps: it runs, goes on where it was, and writes its page."""

import json

import pytest
import yaml

from studies import alignment
from studies.alignment_page import curve, gain, outcome, table
from studies.page import Estimate

SMALL = {
    "fresh_clips": 4,
    "common": {
        "aspects": ["steadiness"], "batch_size": 4, "evaluation_clips": 4, "samples": 0,
        "device": "cpu", "num_inference_steps": 2, "iterations": 1, "prompts_per_iteration": 4,
        "clips_per_prompt": 1,
    },
    "algorithms": {
        "reward_gradients": {"script": "reward_gradients", "seeds": [0], "settings": {}},
    },
}  # fmt: skip


@pytest.mark.slow
def test_it_runs_what_is_missing_and_writes_its_page(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    argv = ["--config", str(config), "--work", str(tmp_path / "work")]
    argv += ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page")]
    alignment.main(argv)
    record = json.loads((tmp_path / "results" / "reward_gradients-0.json").read_text())
    for place in ("before", "after", "last"):
        assert {name: len(v) for name, v in record[place].items()} == {
            "reward": 4, "steadiness": 4, "caption": 4,
        }  # fmt: skip
    assert record["before"] != record["after"]
    assert record["after"] == record["last"]  # one update: the last checkup was sound
    page = (tmp_path / "page" / "results.md").read_text()
    assert "{" not in page
    assert "reward gradients, seed 0: ran to its end" in page
    assert (tmp_path / "page" / "curves.png").exists()
    assert "CPU minutes" in capsys.readouterr().out
    alignment.main(argv)
    assert "CPU minutes" not in capsys.readouterr().out


def record(before, after):
    names = ("reward", "steadiness", "caption")
    return {
        "before": {n: [before] * 3 for n in names},
        "after": {n: [after] * 3 for n in names},
    }


def test_gains_and_outcomes():
    runs = {"dpo": [record(1.0, 1.5), record(2.0, 2.7), record(0.0, 0.6)]}
    assert gain(runs["dpo"][0], "reward", "after") == 0.5
    # mean .6, standard deviation .1, t = 4.303 at two degrees of freedom: ± .248
    assert "| +0.60 ± 0.25 | +0.50, +0.70, +0.60 | **rises** |" in table(runs, "after")
    assert "rises" not in table(runs, "after", chosen=True)
    assert outcome(Estimate(-0.6, 0.2, 3)) == "**falls**"
    assert outcome(Estimate(0.1, 0.2, 3)) == "cannot be told"
    assert outcome(Estimate(0.1, None, 1)) == "one seed"


def test_a_curve_is_that_of_the_checkups():
    journal = [
        {"iteration": 0, "proxy": 1.0, "eval/caption": 2.0},
        {"iteration": 1, "reward": 9.0},
        {"iteration": 1, "proxy": 3.0, "eval/caption": 4.0},
    ]
    assert curve(journal, "reward") == ([0, 1], [1.0, 3.0])
    assert curve(journal, "caption") == ([0, 1], [2.0, 4.0])
