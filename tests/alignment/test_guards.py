import dataclasses
import json
import math
from inspect import unwrap

import pytest
import torch

from gtsvj_reward.alignment import Checkup, Guards, paired_difference
from gtsvj_reward.alignment.guards import trajectory_variance

CLIPS = 50


def checkup(iteration, proxy, metric, *, spread=0.1, roughness=None):
    """Measures around two means, with the same noise of the clips each time and a little fresh."""
    own = torch.randn(CLIPS, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(2, CLIPS, generator=torch.Generator().manual_seed(iteration + 1))
    rough = None if roughness is None else torch.full((CLIPS,), roughness)
    return Checkup(
        iteration, proxy + own + spread * fresh[0], {"g": metric + own + spread * fresh[1]}, rough
    )


def reports(*entries, **settings):
    guards = Guards(**settings)
    return [guards.look(checkup(10 * i, *entry)) for i, entry in enumerate(entries)]


def test_stops_when_the_metric_falls_twice_in_a_row_while_the_reward_rises():
    found = reports((0, 0), (1, 0.5), (2, 0.2), (3, 0.0))
    assert [report.stop for report in found] == [False, False, False, True]
    assert "g fell by 0.3" in found[2].alarms[0]
    assert "since iteration 10" in found[2].alarms[0]


def test_a_recovery_starts_the_count_anew():
    found = reports((0, 0.5), (1, 0.2), (2, 0.6), (3, 0.3), (4, 0.1))
    assert [report.stop for report in found] == [False, False, False, False, True]
    assert [bool(report.alarms) for report in found] == [False, True, False, True, True]


def test_scores_of_another_reward_are_not_compared():
    """A refit shifts the reward of all clips while a metric falls: that is no exploit."""
    guards = Guards(patience=1)
    found = []
    for index, (proxy, metric, refits) in enumerate(
        [(0, 0.5, 0), (3, 0.3, 1), (3, 0.2, 1), (4, 0.0, 1)]
    ):
        taken = checkup(10 * index, proxy, metric)
        found.append(guards.look(dataclasses.replace(taken, refits=refits)).stop)
    assert found == [False, False, False, True]
    again = Guards(patience=1)
    again.load(json.loads(json.dumps(guards.state())))
    assert [c.refits for c in again.checkups] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 0), (1, 1), (2, 2), (3, 3)],  # both rise
        [(0, 0), (-1, -1), (-2, -2), (-3, -3)],  # both fall: bad, but no exploit
        [(0, 0), (1, -0.01), (2, 0.01), (3, -0.01)],  # noise around no change
    ],
)
def test_nothing_is_said_where_nothing_diverges(entries):
    assert all(report == reports(*entries)[0] for report in reports(*entries))


def test_patience_0_never_stops_but_says_so():
    found = reports((0, 0.5), (1, 0.2), (2, 0.1), (3, 0.0), patience=0)
    assert not any(report.stop for report in found)
    assert all(report.alarms for report in found[1:])


def test_a_rough_trajectory_is_an_alarm():
    guards = Guards(roughness_factor=3.0)
    assert guards.look(checkup(0, 0, 0, roughness=0.1)).alarms == ()
    assert guards.look(checkup(1, 1, 1, roughness=0.25)).alarms == ()
    (alarm,) = guards.look(checkup(2, 2, 2, roughness=0.5)).alarms
    assert "5.0 times" in alarm


def test_a_state_goes_through_json_and_the_run_goes_on_alike():
    entries = [(0, 0.5), (1, 0.2), (2, 0.1)]
    guards, again = Guards(), Guards()
    for index, entry in enumerate(entries[:2]):
        guards.look(checkup(index, *entry, roughness=0.1))
    again.load(json.loads(json.dumps(guards.state())))
    last = checkup(2, *entries[2], roughness=0.1)
    assert guards.look(last) == again.look(last)
    assert guards.diverged == again.diverged == {"g": 2}


def test_the_interval_is_that_of_paired_differences():
    before = torch.tensor([1.0, 2.0, 3.0, 4.0])
    after = torch.tensor([2.0, 4.0, 4.0, 6.0])
    # differences 1 2 1 2: mean 1.5, standard deviation √(1/3), standard error √(1/12); Student's t
    # at three degrees of freedom is 3.182 for 95%, 5.841 for 99%
    for tail, quantile in ((0.025, 3.1824), (0.005, 5.8409)):
        found = paired_difference(after, before, tail=tail)
        assert found.mean == pytest.approx(1.5)
        assert found.low == pytest.approx(1.5 - quantile * math.sqrt(1 / 12), abs=1e-4)
        assert found.high == pytest.approx(1.5 + quantile * math.sqrt(1 / 12), abs=1e-4)
    assert paired_difference(after, before) == paired_difference(after, before, tail=0.025)
    with pytest.raises(ValueError, match="the same clips"):
        # below the shape annotations, which only tests check
        unwrap(paired_difference)(after, before[:3])


def test_variance_over_time_of_clips_of_any_length():
    found = trajectory_variance([torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])])
    assert found.tolist() == [1.0, 0.0]


def test_other_measures_and_settings_are_refused():
    guards = Guards()
    guards.look(checkup(0, 0, 0))
    with pytest.raises(ValueError, match="other"):
        guards.look(Checkup(1, torch.zeros(CLIPS), {"other": torch.zeros(CLIPS)}))
    for settings in ({"patience": -1}, {"roughness_factor": 1.0}):
        with pytest.raises(ValueError, match="expected patience"):
            Guards(**settings)
    for settings in ({"looks": 0}, {"false_alarms": 0.0}):
        with pytest.raises(ValueError, match="expected looks"):
            Guards(**settings)


def measured(iteration, **metrics):
    """A checkup of a reward that rises for certain."""
    return Checkup(iteration, torch.arange(float(CLIPS)) + iteration, metrics)


def test_only_the_same_measure_time_after_time_stops_a_run():
    good, bad = torch.arange(float(CLIPS)), torch.arange(float(CLIPS)) - 1
    guards = Guards(patience=2)
    guards.look(measured(0, a=good, b=good))
    first = guards.look(measured(1, a=bad, b=good))
    second = guards.look(measured(2, a=good, b=bad))
    assert [first.diverged, second.diverged] == [True, True]
    assert not second.stop, "two measures fell, one after the other"
    third = guards.look(measured(3, a=bad, b=bad))
    assert third.stop
    assert [alarm[:6] for alarm in third.alarms] == ["b fell", "a fell"]


def test_a_reward_that_may_not_have_risen_is_no_divergence():
    good, bad = torch.arange(float(CLIPS)), torch.arange(float(CLIPS)) - 1
    # differences -1.5 and 2 by turns: mean 0.25, standard error 1.77 / √50 = 0.25
    uncertain = torch.tensor([-1.5, 2.0]).repeat(CLIPS // 2)
    for rise, diverged in ((uncertain, False), (torch.ones(CLIPS), True)):
        guards = Guards()
        guards.look(Checkup(0, torch.zeros(CLIPS), {"g": good}))
        assert guards.look(Checkup(1, rise, {"g": bad})).diverged is diverged


@pytest.mark.parametrize(
    ("looks", "measures", "quantile"), [(1, 1, 1.6766), (20, 1, 3.7442), (20, 3, 4.0928)]
)
def test_a_fall_counts_by_all_comparisons_that_are_planned(looks, measures, quantile):
    # Standard error 1, 49 degrees of freedom: Student's t with a tail of 0.05 / comparisons; one
    # look has one comparison, 20 looks have 20 · 21 / 2, and each measure as many.
    unit = torch.tensor([-1.0, 1.0]).repeat(CLIPS // 2)
    gaps = unit / unit.std() * math.sqrt(CLIPS)
    others = {str(index): torch.zeros(CLIPS) for index in range(measures - 1)}
    for factor, diverged in ((0.99, False), (1.01, True)):
        guards = Guards(looks=looks)
        guards.look(measured(0, g=torch.zeros(CLIPS), **others))
        found = guards.look(measured(1, g=gaps - factor * quantile, **others))
        assert found.diverged is diverged


def simulated(runs, *, fall=0.0, looks=20, clips=32):
    """Share of runs with an alarm, and of those stopped.

    Clips differ with standard deviation 1, and each measurement of a clip by another 0.5; one of
    two measures falls for good at the fifth checkup.
    """
    generator, alarmed, stopped = torch.Generator().manual_seed(0), 0, 0
    for _ in range(runs):
        guards, own = Guards(looks=looks), torch.randn(2, clips, generator=generator)
        found = []
        for k in range(looks + 1):
            metric = own + 0.5 * torch.randn(2, clips, generator=generator)
            metric[0] -= fall * (k >= 5)
            proxy = torch.arange(float(clips)) + k
            found.append(guards.look(Checkup(k, proxy, {"a": metric[0], "b": metric[1]})))
        alarmed += any(report.diverged for report in found)
        stopped += any(report.stop for report in found)
    return alarmed / runs, stopped / runs


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("clips", [4, 32])
def test_sound_runs_are_left_alone(clips):
    """20 looks at two measures that do not change while the reward rises."""
    alarmed, stopped = simulated(200, clips=clips)
    assert alarmed <= 0.05
    assert stopped <= 0.05


def test_runs_with_a_real_fall_are_stopped():
    _, stopped = simulated(40, fall=0.6)
    assert stopped >= 0.95
