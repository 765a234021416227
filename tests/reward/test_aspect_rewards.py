import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.judge import save_judge
from tests.tiny import ASPECTS, clips, tiny_aspect_judge, tiny_judge, tiny_transformer


@pytest.mark.parametrize("stage", ["aspects", "preference"])
@pytest.mark.parametrize("changes", [{}, {"time_pooling": "mean_std", "energy_width": 8}])
def test_scores_aspects_and_trajectories_agree(stage, changes):
    judge = tiny_aspect_judge(stage=stage, **changes)
    reward = GTSVJReward(judge)
    out = reward.details([clips(1, 5, seed=1)[0], clips(1, 7, seed=2)[0], clips(1, 5, seed=3)[0]])
    weights, bias = judge.score_weights()
    assert [len(steps) for steps in out.trajectory] == [5, 7, 5]
    for index in range(3):
        assert out.raw[index] == pytest.approx(out.trajectory[index].mean().item(), abs=1e-6)
        normalised = torch.zeros(len(ASPECTS))
        for place, aspect in enumerate(ASPECTS):
            steps = out.aspect_trajectory[index][aspect.name]
            assert len(steps) == len(out.trajectory[index])
            value = out.aspects[aspect.name][index]
            torch.testing.assert_close(steps.mean(), value)
            normalised[place] = (value - aspect.low) / (aspect.high - aspect.low)
        torch.testing.assert_close(out.raw[index], normalised @ weights + bias)
    assert out.raw.std() > 1e-3
    torch.testing.assert_close(out.rewards, (out.raw - 0.25) / 0.5)


def test_aspects_come_in_the_judges_order_and_on_their_scales():
    judge = tiny_aspect_judge()
    judge.head.aspects.weight.data.zero_()
    judge.head.aspects.bias.data.copy_(torch.tensor([0.0, 0.5, 1.0]))
    out = GTSVJReward(judge).details(clips())
    assert list(out.aspects) == [aspect.name for aspect in ASPECTS]
    expected = {"clear": 1.0, "focus": 1.5, "movement smoothness": 4.0}
    for name, value in expected.items():  # a mean over steps may round
        torch.testing.assert_close(out.aspects[name], torch.full((2,), value))


def test_a_discriminator_has_no_aspects():
    out = GTSVJReward(tiny_judge()).details(clips())
    assert out.aspects == {}
    assert out.aspect_trajectory == [{}, {}]


def test_selections_weigh_range_normalised_aspects():
    judge = tiny_aspect_judge(stage="preference")
    full = GTSVJReward(judge).details(clips(4))
    unit = {a.name: (full.aspects[a.name] - a.low) / (a.high - a.low) for a in ASPECTS}
    two = GTSVJReward(judge, aspects=["focus", "clear"]).details(clips(4))
    torch.testing.assert_close(two.raw, (unit["clear"] + unit["focus"]) / 2)
    assert two.aspects.keys() == full.aspects.keys()
    weighed = GTSVJReward(judge, weights={"clear": 2.0, "focus": -1.0}).details(clips(4))
    torch.testing.assert_close(weighed.raw, 2 * unit["clear"] - unit["focus"])
    for row, steps in zip(weighed.raw, weighed.trajectory, strict=True):
        torch.testing.assert_close(steps.mean(), row)
    assert (weighed.raw - full.raw).abs().max() > 1e-2


def test_selections_are_normalised_by_the_statistics_of_the_aspects():
    """Var(2 x - y) = 4 Var x + Var y - 4 Cov = 4 * 0.04 + 0.04 - 4 * 0.01 = 0.16."""
    judge = tiny_aspect_judge()
    reward = GTSVJReward(judge, weights={"clear": 2.0, "focus": -1.0})
    assert reward.statistics() == pytest.approx((2 * 0.4 - 0.5, 0.4))
    out = reward.details(clips())
    torch.testing.assert_close(out.rewards, (out.raw - 0.3) / 0.4)
    bare = tiny_aspect_judge(aspect_mean=None, aspect_covariance=None)
    with pytest.raises(ValueError, match="no means and covariances"):
        GTSVJReward(bare, aspects=["clear"])(clips())
    GTSVJReward(bare, aspects=["clear"])(clips(), normalize=False)
    with pytest.raises(ValueError, match="statistics of aspects"):
        reward.with_statistics(torch.tensor([0.0, 1.0]), "clips")


def test_the_statistics_of_the_mean_of_all_aspects_are_those_of_the_judge():
    """A selection of all aspects is the judge's own score of stage 2."""
    judge = tiny_aspect_judge()
    names = [aspect.name for aspect in ASPECTS]
    every = GTSVJReward(judge, aspects=names).details(clips(), normalize=False)
    torch.testing.assert_close(every.raw, GTSVJReward(judge).details(clips()).raw)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aspects": ["clear", "focuss"]}, r"different names out of \['clear'.*'focuss'"),
        ({"aspects": []}, "different names"),
        ({"aspects": ["clear", "clear"]}, "different names"),
        ({"aspects": "clear"}, "a list of names, got the string 'clear'"),
        ({"weights": {"clear": float("nan")}}, "finite and not all zero"),
        ({"weights": {"clear": 0.0}}, "finite and not all zero"),
        ({"aspects": ["clear"], "weights": {"clear": 1.0}}, "not both"),
    ],
)
def test_bad_selections_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GTSVJReward(tiny_aspect_judge(), **arguments)


def test_a_discriminator_has_nothing_to_select():
    with pytest.raises(ValueError, match="'discriminator' has no aspects to choose from"):
        GTSVJReward(tiny_judge(), aspects=["clear"])


@pytest.mark.parametrize("stage", ["aspects", "preference"])
def test_gradients_to_latents_equal_central_differences(stage):
    judge = tiny_aspect_judge(stage=stage, time_pooling="mean_std", energy_width=8).double()
    for parameter in judge.head.parameters():
        parameter.data.normal_(0, 0.3)
    reward = GTSVJReward(judge, check_statistics=False)
    latents = clips(2, 4, dtype=torch.float64).requires_grad_()
    judge(latents).scores.mean(1).sum().backward()
    direction = torch.randn_like(latents)
    step = 1e-6
    with torch.no_grad():
        up, down = (judge(latents + s * step * direction).scores.mean(1).sum() for s in (1, -1))
    expected = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-5, atol=0)
    assert all(parameter.grad is None for parameter in reward.judge.parameters())


def test_from_pretrained_takes_a_selection(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    judge = tiny_aspect_judge(stage="preference", base_model=str(tmp_path / "base"))
    save_judge(judge, tmp_path / "judge")
    loaded = GTSVJReward.from_pretrained(tmp_path / "judge", aspects=["clear"])
    assert torch.equal(loaded(clips()), GTSVJReward(judge, aspects=["clear"])(clips()))
    plain = GTSVJReward.from_pretrained(tmp_path / "judge")
    assert torch.equal(plain(clips()), GTSVJReward(judge)(clips()))


def test_scores_of_later_stages_do_not_depend_on_the_batch():
    reward = GTSVJReward(tiny_aspect_judge(stage="preference", time_pooling="mean_std"))
    together = reward(clips(4))
    alone = torch.cat([reward(clips(4)[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert together.std() > 1e-3
