"""Aspects under the names of other reward models."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.annotations.aspects import VISIONREWARD_ASPECTS
from gtsvj_reward.judge import Aspect
from gtsvj_reward.reward.aspect_groups import (
    LEFT_OUT,
    MOTION_QUALITY,
    VISUAL_QUALITY,
    AspectGroups,
)
from tests.tiny import clips, tiny_aspect_judge, tiny_judge

GROUPS = {"still": ["clear", "focus"], "moving": ["movement smoothness"]}


def test_every_aspect_of_visionreward_has_one_place():
    placed = [*VISUAL_QUALITY, *MOTION_QUALITY, *LEFT_OUT]
    assert sorted(placed) == sorted(scale.name for scale in VISIONREWARD_ASPECTS)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_group_scores_as_a_reward_of_its_aspects(normalize):
    judge = tiny_aspect_judge()
    out = GTSVJReward(judge).details(clips(3))
    found = AspectGroups(judge.config, GROUPS).scores(out.aspects, normalize=normalize)
    for name, aspects in GROUPS.items():
        expected = GTSVJReward(judge, aspects=aspects)(clips(3), normalize=normalize)
        torch.testing.assert_close(found[name], expected)
        assert expected.std() > 1e-3, "scores are all alike: the test proves nothing"


def test_golden():
    # clear 1..5 at 3 is 0.5, focus 0..3 at 3 is 1.0: mean 0.75. Mean (0.4 + 0.5) / 2 = 0.45,
    # variance (0.04 + 0.04 + 2 * 0.01) / 4 = 0.025
    groups = AspectGroups(tiny_aspect_judge().config, GROUPS)
    aspects = {"clear": 3.0, "focus": 3.0, "movement smoothness": 1.0}
    given = {name: torch.tensor([value]) for name, value in aspects.items()}
    raw = groups.scores(given, normalize=False)
    torch.testing.assert_close(raw["still"], torch.tensor([0.75]))
    torch.testing.assert_close(raw["moving"], torch.tensor([0.25]))
    normalized = groups.scores(given, normalize=True)
    torch.testing.assert_close(normalized["still"], torch.tensor([0.30 / 0.025**0.5]))


def test_aspects_that_a_judge_lacks_are_refused():
    with pytest.raises(ValueError, match=r"group 'VQ': expected different names out of \['clear'"):
        AspectGroups(tiny_aspect_judge().config, {"VQ": VISUAL_QUALITY})
    with pytest.raises(ValueError, match=r"group 'VQ': .*'discriminator' has no aspects"):
        AspectGroups(tiny_judge().config, {"VQ": ["clear"]})


def test_the_default_groups_fit_a_judge_of_all_aspects():
    aspects = tuple(Aspect(name=s.name, low=s.low, high=s.high) for s in VISIONREWARD_ASPECTS)
    judge = tiny_aspect_judge(aspects=aspects)
    groups = AspectGroups(judge.config, {"VQ": VISUAL_QUALITY, "MQ": MOTION_QUALITY})
    found = groups.scores(GTSVJReward(judge).details(clips()).aspects, normalize=True)
    assert (found["VQ"] - found["MQ"]).abs().min() > 1e-3
