"""How long work will take: by hand, with a clock that the test moves."""

import os
import subprocess
import sys

import pytest

from gtsvj_reward.progress import Forecast, Progress, duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def parts(forecast, clock, *pieces):
    """What is said after each piece of (seconds, work)."""
    said = []
    for seconds, work in pieces:
        clock.now += seconds
        said.append(forecast.part(work))
    return said


def test_a_slow_first_part_is_enough(clock):
    # 60 s for 8 of 80: 72 are left, at 7.5 s each.
    said = parts(Forecast("encode", 80, clock=clock), clock, (60, 8), (60, 8))
    assert said == ["encode: about 9.0 min to go", None]


def test_a_quick_first_part_may_have_been_slow_to_start(clock):
    # 9 s for the first of 100, then 1 s: 98 are left at 1 s.
    said = parts(Forecast("score", 100, clock=clock), clock, (9, 1), (1, 1), (1, 1))
    assert said == [None, "score: about 1.6 min to go", None]


def test_nothing_is_said_of_short_work(clock):
    # 4 s are left after the second part, and an hour later it is too late to say anything.
    said = parts(Forecast("score", 6, clock=clock), clock, (1, 1), (1, 1), (3600, 1), (1, 1))
    assert said == [None] * 4


def test_what_is_done_already_costs_nothing(clock):
    forecast = Forecast("read", 100, at_most=True, clock=clock)
    clock.now += 500
    forecast.skip(50)
    # 20 s for 10, and 40 are left: the 500 s before do not count.
    assert parts(forecast, clock, (20, 10)) == ["read: at most about 1.3 min to go"]


def test_other_work_is_added(clock):
    # 3 left at 20 s, and 60 s of something else.
    forecast = Forecast("align", 4, besides=60, clock=clock)
    assert parts(forecast, clock, (20, 1)) == ["align: about 2.0 min to go"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_bar_says_it_above_itself(capsys, monkeypatch):
    monkeypatch.setattr("gtsvj_reward.progress.SHORT", -1.0)
    with Progress(5, "encode", initial=1) as bar:
        bar.skip()
        bar.update()
        bar.update(1)
        bar.update(1)
    shown = capsys.readouterr().err
    assert shown.count("encode: about ") == 1
    assert "5/5" in shown
    with Progress(5, "encode", shown=False) as bar:
        bar.update(2)
        bar.update(2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("value", "silent"), [("1", True), (None, False)])
def test_the_environment_of_tqdm_silences_it(value, silent):
    code = (
        "from gtsvj_reward import progress\n"
        "progress.SHORT = -1.0\n"
        "with progress.Progress(4, 'encode') as bar:\n"
        "    for _ in range(4): bar.update()\n"
    )
    env = {name: text for name, text in os.environ.items() if name != "TQDM_DISABLE"}
    env |= {} if value is None else {"TQDM_DISABLE": value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert (done.stderr == "") == silent, done.stderr
