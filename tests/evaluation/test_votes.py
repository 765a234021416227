"""Agreement with shares of votes: by hand, and through an evaluation."""

import math

import pytest
import torch

from gtsvj_reward.annotations import Comparison, Comparisons, likelier_side
from gtsvj_reward.evaluation import (
    EvaluationResult,
    evaluate_comparisons,
    result_markdown,
    result_text,
    write_evaluation,
)
from gtsvj_reward.evaluation.evaluate import fingerprint
from gtsvj_reward.evaluation.scores import ScoreTable
from gtsvj_reward.metrics import vote_agreement
from tests.evaluation.made_up import QUICK


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_agreement_by_hand():
    # Right by 0.9 (weight 1), wrong by 0.7: 0.3 (weight 2), equal scores: 0.5 (weight 1).
    found = vote_agreement(doubles(2, -1, 0), doubles(0.9, 0.7, 0.2), doubles(1, 2, 1))
    assert found.agreement == pytest.approx((0.9 + 2 * 0.3 + 0.5) / 4)
    assert found.ceiling == pytest.approx((0.9 + 2 * 0.7 + 0.8) / 4)
    assert (found.pairs, found.weight) == (3, 4.0)
    turned = vote_agreement(doubles(-2, 1, 0), 1 - doubles(0.9, 0.7, 0.2), doubles(1, 2, 1))
    assert turned.agreement == pytest.approx(found.agreement)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((doubles(), doubles(), doubles()), "at least one pair"),
        ((doubles(1, math.nan), doubles(1, 1), doubles(1, 1)), r"pair 1 .*\(1 of 2 pairs\)"),
        ((doubles(1, 1), doubles(1.1, 1), doubles(1, 1)), r"pair 0 has .* probability 1\.1"),
        ((doubles(1, 1), doubles(1, 1), doubles(1, 0)), "pair 1 has .* weight 0"),
    ],
)
def test_unsound_votes(values, message):
    with pytest.raises(ValueError, match=message):
        vote_agreement(*values)


def compared(shares, weight=1.0):
    """One pair for each share of votes."""
    return Comparisons(
        name="votes",
        rows=tuple(
            Comparison(
                row=str(i), video_a=f"a{i}", video_b=f"b{i}", prompt=str(i), weight=weight,
                labels={"overall": likelier_side(p)}, probabilities={"overall": p},
            )
            for i, p in enumerate(shares)
        ),
        dimensions=("overall",),
    )  # fmt: skip


def scored(gaps):
    scores = {f"a{i}": gap for i, gap in enumerate(gaps)} | {f"b{i}": 0.0 for i in range(len(gaps))}
    return ScoreTable(name="scorer", columns={"reward": scores})


def test_an_evaluation_with_votes(tmp_path):
    # All gaps are 2 and three of four votes are for A: sigmoid(2 / s) = 3/4, so s = 2 / log 3.
    result = evaluate_comparisons(compared([0.75] * 6), scored([2.0] * 6), settings=QUICK)
    (item,) = result.dimensions
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    votes = item.votes
    assert votes.agreement == pytest.approx(0.75)
    assert votes.interval == pytest.approx((0.75, 0.75))
    assert votes.ceiling == pytest.approx(0.75)
    assert votes.scale == pytest.approx(2 / math.log(3))
    assert votes.log_loss == pytest.approx(entropy)
    assert votes.entropy == pytest.approx(entropy)
    # Sides alone say that all pairs are right.
    assert item.accuracies["without_ties"].accuracy == 1.0
    assert EvaluationResult.from_json(result.to_json()) == result
    for text in (result_markdown(result), result_text(result)):
        assert "75.0" in text
        assert "0.5623" in text
    write_evaluation(result, compared([0.75] * 6), scored([2.0] * 6), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "votes for what scores higher, of at most 75%" in page
    assert page.count("<title>75% of the votes on 1 pairs, 75% predicted</title>") == 6
    wrong = evaluate_comparisons(compared([0.75] * 6), scored([-2.0] * 6), settings=QUICK)
    assert wrong.dimensions[0].votes.agreement == pytest.approx(0.25)
    assert wrong.dimensions[0].votes.log_loss is None
    assert "undefined" in result_markdown(wrong)


def test_sides_that_count_alike_have_no_votes(tmp_path):
    sides = Comparisons(
        name="sides",
        rows=tuple(
            Comparison(row=str(i), video_a=f"a{i}", video_b=f"b{i}", labels={"overall": label})
            for i, label in enumerate((1, 0, -1, 1))
        ),
        dimensions=("overall",),
    )
    result = evaluate_comparisons(sides, scored([1.0, 0.1, 0.2, 2.0]), settings=QUICK)
    assert result.dimensions[0].votes is None
    assert "Agreement with votes" not in result_markdown(result)
    page = write_evaluation(result, sides, scored([1.0, 0.1, 0.2, 2.0]), tmp_path)
    assert "Agreement with votes" not in page.read_text()


def test_votes_are_part_of_the_data():
    prints = {
        fingerprint(compared(*said).rows)
        for said in (([0.75],), ([0.8],), ([0.75], 2.0), ([0.25],))
    }
    assert len(prints) == 4
