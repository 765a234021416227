"""The alignment study in a few steps: it runs, goes on where it was, and writes its page."""

import json

import pytest
import yaml

from gtsvj_reward import GTSVJReward
from gtsvj_reward.alignment import AlignArguments
from gtsvj_reward.alignment.refit_labels import read_labels
from gtsvj_reward.latents.store import LatentFolder
from studies import alignment
from studies.alignment_judges import judge_settings
from studies.alignment_page import claims, curve, file_name, gain, missing, outcome, table
from studies.page import Estimate

SMALL = {
    "fresh_clips": 4,
    "common": {
        "batch_size": 4, "evaluation_clips": 4, "samples": 0,
        "device": "cpu", "num_inference_steps": 2, "iterations": 1, "prompts_per_iteration": 4,
        "clips_per_prompt": 1,
    },
    "judges": {
        "lora": {"says": "a judge", "reward": "gtsvj-toy-lora",
                 "settings": {"aspects": ["steadiness"]}},
    },
    "algorithms": {"reward_gradients": {"script": "reward_gradients", "settings": {}}},
    "rows": [{"judge": "lora", "algorithms": ["reward_gradients"], "seeds": [0]}],
    "claims": [{"judge": "lora", "algorithm": "reward_gradients", "measure": "steadiness",
                "above": 0.0}],
}  # fmt: skip


@pytest.mark.slow
def test_it_runs_what_is_missing_and_writes_its_page(tmp_path, capsys):
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    argv = ["--config", str(config), "--work", str(tmp_path / "work")]
    argv += ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "page")]
    alignment.main(argv)
    record = json.loads((tmp_path / "results" / "reward_gradients-lora-0.json").read_text())
    for place in ("before", "after", "last"):
        assert {name: len(v) for name, v in record[place].items()} == {
            "reward": 4, "steadiness": 4, "caption": 4,
        }  # fmt: skip
    assert record["before"] != record["after"]
    assert record["after"] == record["last"]  # one update: the last checkup was sound
    page = (tmp_path / "page" / "results.md").read_text()
    assert "{" not in page
    assert "reward gradients, `lora`: gain of steadiness is above 0" in page
    assert "All runs of the configuration were made." in page
    assert (tmp_path / "page" / "curves.png").exists()
    assert "CPU minutes" in capsys.readouterr().out
    alignment.main(argv)
    assert "CPU minutes" not in capsys.readouterr().out


DPO = ("dpo", "own")


def record(before, after):
    names = ("reward", "steadiness", "caption")
    places = {"before": before, "after": after, "last": after}
    return {place: {name: [value] * 3 for name in names} for place, value in places.items()}


def test_gains_and_outcomes():
    runs = {DPO: [record(1.0, 1.5), record(2.0, 2.7), record(0.0, 0.6)]}
    assert gain(runs[DPO][0], "reward", "after") == 0.5
    # mean .6, standard deviation .1, t = 4.303 at two degrees of freedom: ± .248
    assert "| +0.60 ± 0.25 | +0.50, +0.70, +0.60 | **rises** |" in table(runs, "after")
    assert "rises" not in table(runs, "after", chosen=True)
    assert outcome(Estimate(-0.6, 0.2, 3)) == "**falls**"
    assert outcome(Estimate(0.1, 0.2, 3)) == "inconclusive"
    assert outcome(Estimate(0.1, None, 1)) == "one seed"


def test_a_curve_is_that_of_the_checkups():
    journal = [
        {"iteration": 0, "proxy": 1.0, "eval/caption": 2.0},
        {"iteration": 1, "reward": 9.0},
        {"iteration": 1, "proxy": 3.0, "eval/caption": 4.0},
    ]
    assert curve(journal, "reward") == ([0, 1], [1.0, 3.0])
    assert curve(journal, "caption") == ([0, 1], [2.0, 4.0])


def test_a_claim_is_about_the_whole_interval():
    claim = {"judge": "own", "algorithm": "dpo", "measure": "steadiness"}
    config = {
        "claims": [
            {**claim, "above": 0.3},
            {**claim, "above": 0.4},
            {**claim, "above": 0.9},
            {**claim, "times": 3, "than": "lora"},
            {**claim, "algorithm": "ddpo", "above": 0.0},
        ]
    }
    # 0.60 +- 0.25, and a mean gain of 0.1 with the other judge, three times which is 0.3
    runs = {
        DPO: [record(1.0, 1.5), record(2.0, 2.7), record(0.0, 0.6)],
        ("dpo", "lora"): [record(0.0, 0.0), record(0.0, 0.2)],
    }
    lines = claims(runs, config).splitlines()[2:]
    assert "times that with `lora` (+0.10): above 0.30 |" in lines[3]
    found = [line.rsplit(" | ", 1)[1] for line in lines]
    assert found == [
        "**held** |", "inconclusive |", "**did not hold** |", "**held** |", "not run yet |",
    ]  # fmt: skip


def test_runs_without_a_result_are_named(tmp_path):
    config = {"rows": [{"judge": "own", "algorithms": ["dpo", "ddpo"], "seeds": [0, 1]}]}
    for name, seed in (("dpo", 0), ("dpo", 1), ("ddpo", 1)):
        (tmp_path / file_name(name, "own", seed)).touch()
    assert missing(tmp_path, config).splitlines()[2:] == ["- ddpo, `own`: seeds 0"]
    (tmp_path / file_name("ddpo", "own", 0)).touch()
    assert missing(tmp_path, config) == "All runs of the configuration were made."


@pytest.mark.slow
def test_a_judge_of_own_clips_is_fitted_once_and_can_be_refitted(tmp_path, monkeypatch):
    for name, count in {"PROMPTS": 4, "EACH": 2, "REAL": 3}.items():
        monkeypatch.setattr(f"studies.alignment_judges.{name}", count)
    spec = {"fit": "rated", "refit": True, "settings": {"refit_every": 2}}
    found = judge_settings(spec, 0, tmp_path)
    config = GTSVJReward.from_pretrained(found["reward"]).config
    assert [aspect.name for aspect in config.aspects] == ["steadiness"]
    assert config.training["aspects: clips"] == 8
    assert found["refit_every"] == 2
    labels = read_labels(
        AlignArguments(output_dir="x", **{**found, "reward": [found["reward"]]}), config
    )
    assert len(labels.ratings) == 8
    assert len({rating.group for rating in labels.ratings}) == 4
    assert len(LatentFolder(found["refit_positives"]).infos) == 3
    weighted = judge_settings({"fit": "rated", "prompt_score": 2, "settings": {}}, 0, tmp_path)
    assert weighted == {"reward": [f"{found['reward']}=1", "prompt-score=2"]}
    written = (tmp_path / found["reward"] / "config.json").stat().st_mtime_ns
    assert judge_settings(spec, 0, tmp_path) == found
    assert (tmp_path / found["reward"] / "config.json").stat().st_mtime_ns == written
    named = judge_settings({"reward": "gtsvj-toy", "settings": {}}, 0, tmp_path)
    assert named == {"reward": "gtsvj-toy"}
    flow = {"reward": "a", "generator": "gtsvj-toy-flow-unsteady", "settings": {}}
    assert judge_settings(flow, 0, tmp_path)["pretrained_model"] == flow["generator"]
