"""Weighted sums and ensembles: arithmetic by hand, gradients, refusals, real judges."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward import GTSVJReward, RewardOutput
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward import NonFiniteError, Reward, as_reward
from gtsvj_reward.reward.combine import RewardEnsemble, WeightedReward
from tests.tiny import clips, tiny_judge, tiny_space


class Scores:
    """A reward that returns given scores, and remembers how it was called."""

    def __init__(self, *scores, dtype=torch.float32):
        self.scores = torch.tensor(scores, dtype=dtype)
        self.calls = []

    def __call__(
        self, latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True
    ):
        self.calls.append((space, fps, num_frames, text, normalize))
        return self.scores


def brightness(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
    """A differentiable reward."""
    return latents.mean(dim=(1, 2, 3, 4))


def contrast(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
    """Another one."""
    return latents.var(dim=(1, 2, 3, 4))


def text_for(count, words=6, dim=8):
    generator = torch.Generator().manual_seed(5)
    return TextCondition(torch.randn(count, words, dim, generator=generator))


def test_a_weighted_sum_by_hand():
    # 2 * (1, 0) - 0.5 * (4, 2) + 0 * (9, 9) = (0, -1).
    reward = WeightedReward(
        [("a", Scores(1.0, 0.0), 2), ("b", Scores(4.0, 2.0), -0.5), ("c", Scores(9.0, 9.0), 0)]
    )
    out = reward.details(clips(2))
    assert out.rewards.tolist() == [0, -1]
    assert {name: part.tolist() for name, part in out.parts.items()} == {
        "a": [1, 0],
        "b": [4, 2],
        "c": [9, 9],
    }
    assert torch.equal(reward(clips(2)), out.rewards)
    assert reward.__name__ == "weighted_a_b_c"


def test_an_ensemble_by_hand():
    # (1, 5), (3, 5), (8, 5): mean 4; deviations -3, -1, 4: sqrt(26 / 3); then 5 and 0.
    members = {"x": Scores(1.0, 5.0), "y": Scores(3.0, 5.0), "z": Scores(8.0, 5.0)}
    spread = math.sqrt(26 / 3)
    out = RewardEnsemble(members).details(clips(2))
    torch.testing.assert_close(out.rewards, torch.tensor([4.0, 5.0]))
    torch.testing.assert_close(out.uncertainty, torch.tensor([spread, 0.0]))
    assert [*out.parts] == ["x", "y", "z"]
    wary = RewardEnsemble(members, pessimism=0.5)
    torch.testing.assert_close(wary(clips(2)), torch.tensor([4 - spread / 2, 5.0]))
    assert wary.__name__ == "ensemble_x_y_z"


class Sure(Reward):
    """Given scores and uncertainties, as of a moment judge."""

    __name__ = "sure"

    def __init__(self, scores, uncertainty, pessimism=0.0):
        self.scores, self.uncertainty = torch.tensor(scores), torch.tensor(uncertainty)
        self.pessimism = pessimism

    def score(self, clips, normalize=True):
        lowered = self.scores - self.pessimism * self.uncertainty
        rewards = lowered if self.pessimism else self.scores
        return RewardOutput(rewards=rewards, raw=self.scores, uncertainty=self.uncertainty)


def test_an_ensemble_of_uncertain_members_by_hand():
    # Scores (1, 3) and (5, 5): variances 1 and 0; own variances (4 + 16) / 2 and (9 + 9) / 2.
    first = Sure([1.0, 5.0], [2.0, 3.0])
    out = RewardEnsemble({"a": first, "b": Sure([3.0, 5.0], [4.0, 3.0])}).details(clips(2))
    torch.testing.assert_close(out.uncertainty, torch.tensor([math.sqrt(11), 3.0]))
    # Two copies of one judge know no more than one: uncertainty and pessimism are its own.
    twice = RewardEnsemble({"a": first, "b": first}, pessimism=0.5).details(clips(2))
    torch.testing.assert_close(twice.uncertainty, first.uncertainty)
    torch.testing.assert_close(twice.rewards, Sure([1.0, 5.0], [2.0, 3.0], 0.5)(clips(2)))
    # A member without an uncertainty adds 0: 1 + 4 / 2, 0 + 9 / 2.
    mixed = RewardEnsemble({"a": first, "b": Scores(3.0, 5.0)}).details(clips(2))
    torch.testing.assert_close(mixed.uncertainty, torch.tensor([3.0, 4.5]).sqrt())


def test_without_pessimism_no_uncertainty_is_differentiated():
    scores = torch.tensor([1.0], requires_grad=True)
    unsure = Sure([0.0], [0.0])
    unsure.scores, unsure.uncertainty = scores, (scores - 1).sqrt()  # its slope is infinite
    RewardEnsemble({"a": unsure, "b": unsure})(clips(1)).sum().backward()
    assert scores.grad.tolist() == [1.0]


def test_an_uncertainty_is_not_subtracted_twice():
    wary, other = Sure([1.0], [2.0], 1.0), Scores(3.0)
    inside = WeightedReward([("w", RewardEnsemble({"a": wary, "b": other}), 1.0)])
    for member in (wary, inside):
        with pytest.raises(ValueError, match="'m' are already lowered by their uncertainty"):
            RewardEnsemble({"m": member, "o": other}, pessimism=0.5)
    assert RewardEnsemble({"m": wary, "o": other})(clips(1)).tolist() == [1.0]  # (1 - 2 + 3) / 2


@settings(max_examples=30)
@given(first=st.floats(-9, 9, width=32), second=st.floats(-9, 9, width=32))
def test_pessimism_1_takes_the_lower_of_two(first, second):
    wary = RewardEnsemble({"a": Scores(first), "b": Scores(second)}, pessimism=1.0)
    torch.testing.assert_close(wary(clips(1)), torch.tensor([min(first, second)]))


@pytest.mark.parametrize("score", [0.1, 1 / 3, -1e8, 1e-30])
def test_members_that_agree_have_no_disagreement_at_all(score):
    members = {name: Scores(score) for name in "abcdefg"}
    out = RewardEnsemble(members, pessimism=3.0).details(clips(1))
    assert out.uncertainty.item() == 0
    assert out.rewards.item() == torch.tensor(score).item()


def test_all_arguments_reach_all_members():
    first, second = Scores(1.0, 2.0), Scores(1.0, 2.0)
    text, space = text_for(2), tiny_space()
    for reward in (
        WeightedReward([("a", first, 1.0), ("b", second, 1.0)]),
        RewardEnsemble({"a": first, "b": second}),
    ):
        reward(clips(2), space=space, fps=8.0, num_frames=17, text=text, normalize=False)
    assert first.calls == second.calls == [(space, 8.0, 17, text, False)] * 2


def test_a_weighted_sum_is_differentiable():
    latents = clips(3).requires_grad_()
    reward = WeightedReward([("a", brightness, 2.0), ("b", contrast, -3.0)])
    (found,) = torch.autograd.grad(reward(latents).sum(), latents)
    (expected,) = torch.autograd.grad(
        (2 * brightness(latents) - 3 * contrast(latents)).sum(), latents
    )
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("pessimism", [0.0, 1.5])
def test_gradients_are_finite_where_all_members_agree(pessimism):
    latents = clips(2).requires_grad_()
    reward = RewardEnsemble({"a": contrast, "b": contrast, "c": contrast}, pessimism=pessimism)
    (found,) = torch.autograd.grad(reward(latents).sum(), latents)
    (expected,) = torch.autograd.grad(contrast(latents).sum(), latents)
    torch.testing.assert_close(found, expected)


def test_gradients_of_a_pessimistic_ensemble_are_those_of_finite_differences():
    latents = clips(2, 1, 2, 2).double().requires_grad_()
    reward = RewardEnsemble(
        {"a": brightness, "b": contrast, "c": lambda x, **_: 2 * brightness(x)}, pessimism=0.7
    )
    # Scores are float32, hence the wide step and tolerance.
    assert torch.autograd.gradcheck(
        lambda x: reward(x).double(), latents, eps=1e-2, atol=1e-3, rtol=1e-2
    )


def test_they_are_members_of_each_other():
    inner = WeightedReward([("a", Scores(1.0, 2.0), 2.0)])
    ensemble = RewardEnsemble({"w": inner, "s": Scores(4.0, 8.0)})
    outer = WeightedReward([("e", ensemble, 10.0), ("s", Scores(1.0, 1.0), 1.0)])
    # (2 + 4) / 2 = 3 and (4 + 8) / 2 = 6; times 10 plus 1.
    assert outer(clips(2)).tolist() == [31, 61]


def test_half_and_double_scores_come_back_in_float32():
    parts = [
        ("a", Scores(1.0, dtype=torch.bfloat16), 1.0),
        ("b", Scores(2.0, dtype=torch.float64), 1.0),
    ]
    out = WeightedReward(parts).details(clips(1))
    assert out.rewards.dtype == torch.float32
    assert {part.dtype for part in out.parts.values()} == {torch.float32}


def test_real_judges():
    first = GTSVJReward(tiny_judge())
    second = GTSVJReward(tiny_judge("5b"))
    latents = [clip for shape in (3, 5) for clip in clips(2, shape, seed=shape)]
    a, b = first(latents), second(latents)
    assert (a - b).abs().min() > 1e-4
    weighted = WeightedReward([("a", first, 0.25), ("b", second, 2.0)])
    torch.testing.assert_close(weighted(latents), 0.25 * a + 2 * b)
    out = RewardEnsemble({"a": first, "b": second}).details(latents)
    torch.testing.assert_close(out.rewards, (a + b) / 2)
    torch.testing.assert_close(out.uncertainty, (a - b).abs() / 2)
    assert isinstance(first.details(latents), RewardOutput)
    with pytest.raises(LatentSpaceError, match="reward 'a': "):
        weighted(latents, space=tiny_space(id="another"))


def test_prompts_go_to_those_who_read_them():
    deaf, listening = GTSVJReward(tiny_judge()), GTSVJReward(tiny_judge(text_input="prompt"))
    own = Scores(1.0, 2.0)
    assert [as_reward(reward).reads_text for reward in (deaf, listening, own)] == [
        False,
        True,
        True,
    ]
    latents, text = clips(2), text_for(2)
    deaf_pair = RewardEnsemble({"d": deaf, "e": deaf})
    mixed = WeightedReward([("p", deaf_pair, 1.0), ("l", listening, 1.0), ("o", own, 0.0)])
    assert [reward.reads_text for reward in (deaf_pair, mixed)] == [False, True]
    torch.testing.assert_close(
        mixed(latents, text=text), deaf(latents) + listening(latents, text=text)
    )
    assert own.calls[0][3] is text
    with pytest.raises(ValueError, match=r"none of the rewards \(d, e\) reads prompts"):
        deaf_pair(latents, text=text)


def test_what_members_return_is_checked():
    for build in (
        lambda bad: WeightedReward([("good", Scores(1.0, 1.0), 1.0), ("bad", bad, 1.0)]),
        lambda bad: RewardEnsemble({"good": Scores(1.0, 1.0), "bad": bad}),
    ):
        with pytest.raises(
            NonFiniteError, match=r"reward 'bad' gave clip 1 the score nan \(1 of 2"
        ):
            build(Scores(1.0, math.nan))(clips(2))
        with pytest.raises(ValueError, match=r"'bad' returned scores of shape \(3,\).*\(2,\)"):
            build(Scores(1.0, 2.0, 3.0))(clips(2))
    overflow = WeightedReward([("a", Scores(1e30), 1e30)])
    with pytest.raises(NonFiniteError, match="'weighted_a' gave clip 0 the score inf"):
        overflow(clips(1))


@pytest.mark.usefixtures("unchecked")
def test_bad_combinations_are_refused():
    one = Scores(1.0)
    with pytest.raises(ValueError, match="at least one"):
        WeightedReward([])
    with pytest.raises(ValueError, match="given more than once: a"):
        WeightedReward([("a", one, 1.0), ("b", one, 1.0), ("a", one, 2.0)])
    with pytest.raises(ValueError, match="not empty"):
        WeightedReward([("", one, 1.0)])
    for weight in (math.nan, math.inf):
        with pytest.raises(ValueError, match="weight of 'a' must be finite"):
            WeightedReward([("a", one, weight)])
    with pytest.raises(ValueError, match=r"all weights are 0 \(a, b\)"):
        WeightedReward([("a", one, 0.0), ("b", one, 0.0)])
    for members in ({}, {"a": one}):
        with pytest.raises(ValueError, match=f"at least 2 members, got {len(members)}"):
            RewardEnsemble(members)
    for pessimism in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="`pessimism` must be >= 0"):
            RewardEnsemble({"a": one, "b": one}, pessimism=pessimism)
