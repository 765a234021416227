"""What the labels have bought: only honest predictions count, and trends by hand."""

import math

import pytest

from gtsvj_reward.labelling.labels import Answer, Task
from gtsvj_reward.labelling.progress import Trial, accuracy, last_point, rating_error, trials


def compared(predicted, label, choice="random", labels=10):
    task = Task(
        ticket="t", rater="ann", kind="compare", clips=("a", "b"), choice=choice,
        predicted=predicted, labels=labels,
    )  # fmt: skip
    return Answer(task=task, label=label)


def test_only_random_pairs_that_were_predicted_and_are_no_tie_count():
    answers = [
        compared(0.9, 1), compared(0.2, 1), compared(0.3, -1), compared(0.5, -1),
        compared(0.9, 0), compared(None, 1), compared(0.1, 1, "active"), compared(0.1, 1, "double"),
    ]  # fmt: skip
    assert [trial.right for trial in trials(answers)] == [1, 0, 1, 0.5]
    found = accuracy(trials(answers))
    assert (found["share"], found["pairs"]) == (0.625, 4)
    assert found["low"] < 0.625 < found["high"]
    assert accuracy([]) is None


def test_labels_of_the_last_point():
    # 0.6 right at 10 labels and 0.8 at 160: 0.2 for a factor of 16, so b = 0.2 / ln 16, and at 160
    # labels the last 0.01 took 160 (1 - 16^(-1/20)) = 20.7.
    right = [1.0] * 60 + [0.0] * 40
    more = [1.0] * 80 + [0.0] * 20
    found = last_point([Trial(10, r) for r in right] + [Trial(160, r) for r in more], 160)
    assert found["cost"] == math.ceil(160 * (1 - 16 ** (-1 / 20)))
    assert found["at_most"] > found["cost"]
    worse = last_point([Trial(10, r) for r in more] + [Trial(160, r) for r in right], 160)
    assert worse["cost"] is None
    assert last_point([Trial(10, 1.0)] * 50, 10) is None
    assert last_point([Trial(0, 1.0)] * 50, 10) is None


def test_error_of_ratings():
    def rated(predicted, score, choice="random"):
        task = Task(
            ticket="t", rater="ann", kind="rate", clips=("a",), choice=choice, predicted=predicted
        )
        return Answer(task=task, scores={"clear": score})

    answers = [
        rated(None, 2),
        rated({"clear": 3.5}, 4),  # off by 0.5, the mean 2 by 2
        rated({"clear": 5.0}, 1, "active"),
        rated({"clear": 3.0}, 1),  # off by 2, the mean 7/3 by 4/3
    ]
    found = rating_error(answers)
    assert found["error"] == pytest.approx(1.25)
    assert found["of_the_mean"] == pytest.approx((2 + 4 / 3) / 2)
    assert found["ratings"] == 2
    assert rating_error(answers[:1]) is None
