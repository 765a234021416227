"""result.json gives back what was written, and nothing else is read."""

import json

import pytest

from gtsvj_reward.evaluation import EvaluationResult, evaluate_comparisons
from tests.evaluation.made_up import QUICK, made_up, made_up_scores


@pytest.fixture(scope="module")
def result():
    data = made_up(24, prompts=6)
    return evaluate_comparisons(data, made_up_scores(data, aspects=("clear",)), settings=QUICK)


def test_round_trip(result):
    again = EvaluationResult.from_json(result.to_json())
    assert again == result
    assert again.to_json() == result.to_json()
    assert any(a.win_rates is not None for a in result.dimensions + result.models)
    assert any(a.undefined for a in result.dimensions + result.models)


def changed(result, change):
    values = json.loads(result.to_json())
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format_version=9), "format_version is 9, this release reads 3"),
        (lambda v: v.update(author="me"), r"EvaluationResult: unknown fields \['author'\]"),
        (lambda v: v.pop("fingerprint"), r"missing fields \['fingerprint'\]"),
        (lambda v: v["settings"].pop("seed"), r"EvaluationSettings: .*missing fields \['seed'\]"),
        (lambda v: v["dimensions"][0].update(n=1), r"Agreement: unknown fields \['n'\]"),
        (
            lambda v: v["models"][0]["accuracies"]["with_ties"].pop("chance"),
            r"Accuracy: .*missing fields \['chance'\]",
        ),
        (
            lambda v: v["model_scores"].append(3),
            "`model_scores` must be a list of an object",
        ),
        (lambda v: v.update(evaluated="60"), "`evaluated` must be a whole number, got '60'"),
        (
            lambda v: v["dimensions"][0]["accuracies"]["with_ties"].update(accuracy=None),
            "`accuracy` must be a finite number, got None",
        ),
    ],
)
def test_other_content_is_refused(result, change, message):
    with pytest.raises(ValueError, match=message):
        EvaluationResult.from_json(changed(result, change))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format_version": 3}'])
def test_what_is_no_result_is_refused(text):
    with pytest.raises(ValueError, match=r"not JSON|format_version is None|missing fields"):
        EvaluationResult.from_json(text)
