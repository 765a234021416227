"""Judges that read prompts, fitted to clips under right and wrong ones."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.training.closed_form.features import FeatureCache, Shown
from gtsvj_reward.training.closed_form.prompts import (
    other_prompt,
    shown,
    shown_or_not,
    swapped,
)
from gtsvj_reward.training.closed_form.refit import refit
from tests.judge.test_moment_judge import moment_judge
from tests.judge.test_prompt_moments import READS
from tests.tiny import clips

WORDS = {"left": 0, "right": 1}


def encode(prompts):
    """Two prompts as two opposite embeddings."""
    generator = torch.Generator().manual_seed(8)
    vectors = 2 * torch.randn(2, 6, 8, generator=generator)
    return TextCondition(torch.stack([vectors[WORDS[prompt]] for prompt in prompts]))


def lot(count, seed):
    """Clips that are brighter on the side that their prompt names."""
    latents, prompts = clips(count, seed=seed), []
    generator = torch.Generator().manual_seed(seed + 1)
    middle = latents.shape[-1] // 2
    for clip, side in zip(latents, torch.randint(2, (count,), generator=generator), strict=True):
        prompts.append("left" if side == 0 else "right")
        half = clip[..., :middle] if side == 0 else clip[..., middle:]
        half += 2.0
    return [lambda clip=clip: clip for clip in latents], prompts, latents


@pytest.fixture(scope="module")
def fitted():
    fresh = moment_judge(filled=False, **READS)
    loads, prompts, _ = lot(48, seed=0)
    contrast = swapped(loads, prompts, encode, groups=[str(i) for i in range(48)])
    return refit(fresh, FeatureCache(fresh), contrast=contrast)


def test_a_judge_tells_clips_under_wrong_prompts_from_those_under_their_own(fitted):
    _, prompts, latents = lot(40, seed=50)
    wrong = ["right" if prompt == "left" else "left" for prompt in prompts]
    reward = GTSVJReward(fitted)
    own, other = (reward(latents, text=encode(said)) for said in (prompts, wrong))
    assert (own > other).float().mean() > 0.8
    assert reward(latents).isfinite().all()


def test_a_clip_under_two_prompts_is_read_twice_and_under_one_once():
    judge = moment_judge(filled=False, **READS)
    cache, (loads, _, _) = FeatureCache(judge), lot(2, seed=0)
    first, second = shown(loads[0], "left", encode), shown(loads[0], "right", encode)
    names = cache.read([first, second, loads[0], first], "clips")
    assert len(set(names)) == 3
    assert cache.computed == 3
    features = cache.features(names)
    expected = judge.moments(loads[0]()[None], encode(["right"])).mean(1)[0]
    torch.testing.assert_close(features[1], expected)
    assert torch.equal(features[0], features[3])


def test_a_judge_that_reads_no_prompt_refuses_clips_that_have_one():
    cache, (loads, _, _) = FeatureCache(moment_judge(filled=False)), lot(1, seed=0)
    with pytest.raises(ValueError, match="ignores prompts"):
        cache.read([shown(loads[0], "left", encode)], "clips")


def test_a_tenth_goes_without_its_prompt_by_seed_and_place_alone():
    loads, prompts, _ = lot(300, seed=0)
    found = shown_or_not(loads, prompts, encode, seed=3)
    without = [index for index, clip in enumerate(found) if not isinstance(clip(), Shown)]
    assert 15 <= len(without) <= 47  # 30 expected, standard deviation 5.2
    again = shown_or_not(loads[:100], prompts[:100], encode, seed=3)
    assert [i for i, clip in enumerate(again) if not isinstance(clip(), Shown)] == [
        index for index in without if index < 100
    ]
    assert all(isinstance(c(), Shown) for c in shown_or_not(loads, prompts, encode, dropout=0))


def test_wrong_prompts_are_never_the_own_one():
    draw = other_prompt(["a", "b", "c", "a"])
    generator = torch.Generator().manual_seed(0)
    assert {draw("a", generator) for _ in range(30)} == {"b", "c"}
    loads, prompts, _ = lot(3, seed=0)
    for call, message in (
        (
            lambda: other_prompt(["a", "a"]),
            "all 2 clips have the prompt 'a', expected different ones",
        ),
        (lambda: swapped(loads, prompts[:2], encode, groups="abc"), "2 prompts for 3 clips"),
        (
            lambda: swapped(loads, [*prompts[:2], " "], encode, groups="abc"),
            "clip 2 has an empty prompt",
        ),
        (
            lambda: swapped(loads, prompts, encode, groups="abc", wrong=lambda said, _: said),
            "the wrong prompt of clip 0 is its own",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
