"""The study of moments: its intervals by hand, and a tiny run that goes on where it was."""

import json

import pytest
import torch
import yaml

from gtsvj_reward.toy.world import render
from studies import moments, moments_page as page, own_clips, semantic
from studies.data import TestPair as Pair

SMOKE = {
    "pipeline": "gtsvj-toy-pipeline",
    "threads": 1,
    "seeds": 1,
    "sizes": {
        "real": 8, "generated": 4, "held_out": 2, "rated": 20, "compared": 10, "same": 1,
        "cross": 4, "lengths": 2,
    },
    "draws": {
        "real": 6, "generated": 3, "negatives": 2, "labels": 10, "held_out_ratings": 4,
    },
    "own": {
        "test_prompts": 2, "clips": 3, "rated_prompts": 4, "rated_clips": 2, "labelled_prompts": 3,
    },
    "semantic": {"pool": 4, "labelled": 3, "test": 2},
    "optimised_steps": 1,
}  # fmt: skip


def test_an_interval_over_seeds_and_units_by_hand():
    # Two seeds, two units, in percent:  100 60   means of seeds 80, 40 (variance 800),
    #                                     80  0   of units 90, 30 (variance 1800).
    # a = 800 / 2 = 400, b = 1800 / 2 = 900; degrees of freedom 1300^2 / (400^2 + 900^2) = 1.7423.
    # t(0.975, 1.7423) lies between t(1) = 12.706 and t(2) = 4.303; half = t * sqrt(1300).
    found = page.estimate(torch.tensor([[1.0, 0.6], [0.8, 0.0]]))
    assert found.value == pytest.approx(60)
    from scipy.stats import t

    freedom = 1300**2 / (400**2 + 900**2)
    assert found.half == pytest.approx(t.ppf(0.975, freedom) * 1300**0.5)
    assert 4.303 * 1300**0.5 < found.half < 12.706 * 1300**0.5


def test_an_interval_of_seeds_that_agree_on_every_unit_is_that_of_the_units():
    # Four units, 0 0 1 1 for both seeds: a = 0, b = variance (1/3) / 4, three degrees of freedom.
    found = page.estimate(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))
    assert found.half == pytest.approx(3.18245 * 100 * (1 / 12) ** 0.5, rel=1e-4)


def test_an_interval_of_units_that_agree_is_that_of_the_seeds():
    # Seeds 60, 70, 80 percent on every unit: t(0.975, 2) = 4.3027, deviation 10.
    found = page.estimate(torch.tensor([[0.6] * 5, [0.7] * 5, [0.8] * 5]))
    assert found.half == pytest.approx(4.3027 * 10 / 3**0.5, rel=1e-4)
    assert page.estimate(torch.tensor([[0.5, 0.7]])).verdict(0) == "inconclusive (one seed)"


@pytest.mark.parametrize(
    ("value", "half", "verdict"),
    [
        (3, 2, "**held**"),
        (-3, 2, "**the opposite holds**"),
        (0.5, 1, "**did not hold**"),
        (1.5, 2, "inconclusive"),
    ],
)
def test_a_verdict_follows_from_the_interval(value, half, verdict):
    assert page.Estimate(value, half).verdict(0) == verdict


def test_pairs_are_marked_in_the_right_order_and_scenes_stay_together():
    # By utility the first of a pair is better (+) or worse (-).
    pairs = [
        Pair("cross/seen", "a", "b", 2.0),
        Pair("cross/seen", "a", "b", -2.0),
        Pair("cross/unseen", "b", "c", 1.0),
        Pair("short", "b", "a", 1.0),
    ]
    found = page.marks(pairs, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert {test: each["marks"] for test, each in found.items()} == {
        "cross": "20", "unseen": "1", "short": "0",
    }  # fmt: skip
    scenes = {"tests": {"same": {"marks": "2" * 9 + "0" * 6 + "2" * 3, "unit": 9}}}
    assert page.outcomes(scenes, "same").tolist() == pytest.approx([1, 1 / 3])


def test_a_difference_is_of_the_seeds_that_both_rows_have():
    def record(marks):
        return {"tests": {"cross": {"marks": marks, "unit": 1}}}

    records = {
        "a": {0: record("2222"), 1: record("2200"), 2: record("0000")},
        "b": {0: record("2200"), 1: record("2200")},
    }
    # Seeds 0 and 1: differences 0 0 1 1 and 0 0 0 0, mean 25%.
    assert page.compared(records, "a", "b", "cross").value == pytest.approx(25)
    assert page.compared(records, "a", "c", "cross") is None


def run(tmp_path, *only):
    config = tmp_path / "smoke.yaml"
    config.write_text(yaml.safe_dump(SMOKE))
    words = [
        *("--config", config, "--work", tmp_path / "work", "--results", tmp_path / "results"),
        *("--page", tmp_path / "moments.md", "--only", *only),
    ]
    return moments.main([str(word) for word in words])


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_and_says_what_is_missing(tmp_path, capsys, unchecked):
    assert run(tmp_path, "energy", "hand_ridge") == 0
    results = tmp_path / "results"
    assert sorted(path.stem for path in results.iterdir()) == ["energy-0", "hand_ridge-0"]
    record = json.loads((results / "energy-0.json").read_text())
    assert len(record["tests"]["same"]["marks"]) == 9
    assert set(record["tests"]) == {"same", "graded", "cross", "unseen", "short", "long"}
    page_before = (tmp_path / "moments.md").read_text()
    assert "`reward`" in page_before.split("Not run yet:")[1].split(".")[0]

    # An interrupted run: one result is there, the other is not; features are read from disk.
    before = (results / "energy-0.json").stat().st_mtime_ns
    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "work/tables").iterdir()}
    lost = (results / "hand_ridge-0.json").read_text()
    (results / "hand_ridge-0.json").unlink()
    capsys.readouterr()
    status = run(
        tmp_path, "energy", "hand_ridge", "reward", "comparisons", "uncertainty", "own_hand",
        "reversal_hand", "penalised", "own_surprised",
    )  # fmt: skip
    assert status == 0
    assert (results / "energy-0.json").stat().st_mtime_ns == before
    assert " energy-0" not in capsys.readouterr().out
    again = json.loads((results / "hand_ridge-0.json").read_text())
    assert again["tests"] == json.loads(lost)["tests"]
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    found = json.loads((results / "uncertainty-0.json").read_text())["tests"]
    assert len(found["coverage_50"]["values"]) == 4
    assert len(found["optimised_ratio"]["values"]) == 2
    found = json.loads((results / "own_hand-0.json").read_text())["tests"]
    assert {test: len(each["values"]) for test, each in found.items()} == {
        "within": 2, "best": 2, "both": 2,
    }  # fmt: skip
    found = json.loads((results / "reversal_hand-0.json").read_text())["tests"]
    assert {test: len(each["marks"]) for test, each in found.items()} == {
        "reversal": 2, "upwards": 2, "wall": 2,
    }  # fmt: skip


def test_bodies_turn_far_from_walls_and_go_back():
    scene = next(
        scene
        for index in range(50)
        if (scene := semantic.scene_of("bouncing", 7, index)).count == 1
    )
    (body,) = scene.bodies
    track = semantic.turned(body).track
    steps = track.diff(dim=0).norm(dim=1)
    turns = [frame for frame in semantic.TURNS if torch.equal(track[frame - 1], track[frame + 1])]
    assert len(turns) == 1
    after = len(track) - turns[0]
    assert torch.equal(track[: turns[0] + 1], body.track[: turns[0] + 1])
    assert torch.equal(track[turns[0] :], track[turns[0] - after + 1 : turns[0] + 1].flip(0))
    assert not torch.equal(track, body.track)
    assert steps.max() < 4.3  # no jump: a bouncing body goes 4.25 pixels a frame at most


def test_a_fall_is_played_backwards_and_falls_up():
    scene = semantic.scene_of("falling", 7, 0)
    clean = render(scene)
    assert torch.equal(semantic.reversed_in_time(scene)[0], clean[-1])
    assert torch.equal(semantic.upside_down(scene)[:, 0], clean[:, -1])


def test_agreement_within_prompts_by_hand(tmp_path):
    # One prompt; scores order the three unsteady clips as the pixels do, but for the best two.
    sizes = {"test_prompts": 1, "clips": 3}
    steady = {"unsteady": [0.0, 2.0, 4.0], "steady": [6.0, 6.0, 6.0]}
    scores = {"unsteady": [0.0, 2.0, 1.0], "steady": [9.0, 9.0, 9.0]}
    named = [
        {
            own_clips.clip_name("test", generator, 0, number): value
            for generator, values in table.items()
            for number, value in enumerate(values)
        }
        for table in (steady, scores)
    ]
    (tmp_path / own_clips.MEASURED).write_text(json.dumps(named[0]))
    found = own_clips.within_prompts(tmp_path, sizes, named[1])
    # Best by score is the one of 2: the mean, so that nothing of the gain is taken.
    assert found["best"] == [0.0]
    # Deviations -2 0 2 and -1 1 0: 2 / sqrt(8 * 2) = 0.5.
    assert found["within"] == [0.5]
    # Over both: -5 -3 -4 4 4 4 and -4 -2 0 2 2 2: 50 / sqrt(98 * 32) = 50 / 56.
    assert found["both"] == [0.8929]
