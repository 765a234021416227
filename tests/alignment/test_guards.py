import json
import math
from inspect import unwrap

import pytest
import torch

from gtsvj_reward.alignment import Checkup, Guards, paired_difference
from gtsvj_reward.alignment.guards import trajectory_variance

CLIPS = 50


def checkup(iteration, proxy, gold, *, spread=0.1, roughness=None):
    """Measures around two means, with the same noise of the clips each time and a little fresh."""
    own = torch.randn(CLIPS, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(2, CLIPS, generator=torch.Generator().manual_seed(iteration + 1))
    rough = None if roughness is None else torch.full((CLIPS,), roughness)
    return Checkup(
        iteration, proxy + own + spread * fresh[0], {"g": gold + own + spread * fresh[1]}, rough
    )


def verdicts(*entries, **settings):
    guards = Guards(**settings)
    return [guards.look(checkup(10 * i, *entry)) for i, entry in enumerate(entries)]


def test_stops_when_the_gold_falls_twice_in_a_row_while_the_reward_rises():
    found = verdicts((0, 0), (1, 0.5), (2, 0.2), (3, 0.0))
    assert [verdict.stop for verdict in found] == [False, False, False, True]
    assert "g fell by 0.3" in found[2].alarms[0]
    assert "since iteration 10" in found[2].alarms[0]


def test_a_recovery_starts_the_count_anew():
    found = verdicts((0, 0.5), (1, 0.2), (2, 0.6), (3, 0.3), (4, 0.1))
    assert [verdict.stop for verdict in found] == [False, False, False, False, True]
    assert [bool(verdict.alarms) for verdict in found] == [False, True, False, True, True]


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 0), (1, 1), (2, 2), (3, 3)],  # both rise
        [(0, 0), (-1, -1), (-2, -2), (-3, -3)],  # both fall: bad, but no exploit
        [(0, 0), (1, -0.01), (2, 0.01), (3, -0.01)],  # noise around no change
    ],
)
def test_nothing_is_said_where_nothing_diverges(entries):
    assert all(verdict == verdicts(*entries)[0] for verdict in verdicts(*entries))


def test_patience_0_never_stops_but_says_so():
    found = verdicts((0, 0.5), (1, 0.2), (2, 0.1), (3, 0.0), patience=0)
    assert not any(verdict.stop for verdict in found)
    assert all(verdict.alarms for verdict in found[1:])


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
    assert guards.diverged == again.diverged == 2


def test_the_interval_is_that_of_paired_differences():
    before = torch.tensor([1.0, 2.0, 3.0, 4.0])
    after = torch.tensor([2.0, 4.0, 4.0, 6.0])
    # differences 1 2 1 2: mean 1.5, standard deviation √(1/3), standard error √(1/12)
    found = paired_difference(after, before)
    assert found.mean == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5 - 1.96 * math.sqrt(1 / 12))
    assert found.high == pytest.approx(1.5 + 1.96 * math.sqrt(1 / 12))
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
