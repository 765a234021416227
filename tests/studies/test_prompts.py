"""The study of prompts: its numbers by hand, and captions with one attribute wrong."""

import pytest
import torch

from gtsvj_reward.toy.world import captions
from studies import prompts_page as page
from studies.own_clips import prompts_of
from studies.prompt_choices import new_prompts
from studies.prompts import OWN, wrong_caption


def seed(own, other):
    """A seed in which each way of scoring says the same of two clips."""
    ways = ("score", "moments", "detector")
    kinds = (*page.ATTRIBUTES, "other")
    found = {"own": dict.fromkeys(ways, own), **{k: dict.fromkeys(ways, other) for k in kinds}}
    return {"real": found, "generated": found, "best_of": [LOT], "cpu_seconds": 1}


LOT = {
    "quality": [0.0, 1.0, 2.0],
    "score": [2.0, 1.0, -1.0],
    "moments": [0.0, 0.0, 3.0],
    "caption": [-1.0, -2.0, -6.0],
    "steadiness": [1.0, 5.0, 3.0],
}


def test_shares_and_gains_by_hand():
    half = seed([1.0, 3.0, 2.0, 0.0], [0.0, 3.0, 3.0, -1.0])
    # Right, equal, wrong, right.
    assert page.share_right(half, "real", "score", "count") == pytest.approx(100 * 2.5 / 4)
    assert page.over_attributes(half, "generated", "both") == pytest.approx(100 * 2.5 / 4)
    # By quality the third candidate: -6 against a mean of -3. By the score the first.
    assert page.gains(half, "quality", "caption") == [pytest.approx(-3)]
    assert page.gains(half, "score", "caption") == [pytest.approx(2)]
    # z-scores: quality -1, 0, 1; score (2, 1, -1) - 2/3 over sqrt(7/3): 0.87, 0.22, -1.09. Sums
    # -0.13, 0.22, -0.09: the second, whose steadiness is 5 against a mean of 3.
    assert page.gains(half, "quality + score", "steadiness") == [pytest.approx(2)]


def test_intervals_by_hand():
    # 1, 2, 3: deviation 1; t(0.975, 2) = 4.3027.
    found = page.Estimate.of([1.0, 2.0, 3.0])
    assert (found.value, found.half) == (2.0, pytest.approx(4.3027 / 3**0.5, rel=1e-4))
    assert page.Estimate.of([[1.0, 2.0], [3.0]]) == found
    claim = page.Claim("", lambda seed: 0.0, above=0)
    assert claim.verdict(page.Estimate(2.0, 1.0)) == "holds"
    assert claim.verdict(page.Estimate(1.0, 2.0)) == "open"
    assert claim.verdict(page.Estimate(-2.0, 1.0)) == "refuted"


def test_the_page_has_all_that_was_claimed():
    text = page.page([seed([1.0, 2.0], [0.0, 3.0]), seed([1.0, 2.0], [0.0, 1.0])])
    for part in (
        "one wrong attribute in more than 85%",
        "75.0 ±",
        "Best of 10",
        "ignores the prom",
    ):
        assert part in text


def test_a_wrong_caption_differs_in_what_it_says():
    for attribute, place in (("count", 0), ("colour", 1), ("shape", 2), ("motion", 3)):
        for index, text in enumerate(captions()):
            generator = torch.Generator().manual_seed(index)
            wrong = wrong_caption(text, attribute, generator)
            assert wrong in captions()
            words, own = ([w.removesuffix("s") for w in t.split()] for t in (wrong, text))
            assert [a != b for a, b in zip(words, own, strict=True)] == [
                place == other for other in range(4)
            ]
    assert wrong_caption("one red circle falling", "other", torch.Generator()) in captions()


def test_the_repetition_is_over_prompts_by_hand():
    # By the score 2 above the mean of captions, and by quality -3; the other lot is turned round.
    turned = {name: values[::-1] for name, values in LOT.items()}
    assert page.over_lots([LOT, turned], "score", "caption") == pytest.approx(2)
    part = {"prompts": {"a": [LOT, turned], "b": [turned]}, "cpu_seconds": 90}
    text = page.page_again([part])
    assert "2 new prompts, 2 sets of 10 new candidates" in text
    assert "| prompt score | 2.00 ± 0.00 |" in text
    assert page.page_again([]) == ""
    assert len(new_prompts()) == 81
    assert len({*new_prompts(), *prompts_of("test", {**OWN, "test_prompts": 15})}) == 96
