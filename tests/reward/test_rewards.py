"""What holds for every kind of reward: a judge, combinations, a function, a client of a server."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.reward import (
    Clips,
    Reward,
    RewardEnsemble,
    RewardOutput,
    WeightedReward,
    as_reward,
)
from tests.serving.server import client_of, serving
from tests.tiny import clips, mixed_clips, tiny_aspect_judge, tiny_judge, tiny_space


def contrast(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
    """A function of one's own."""
    return torch.stack([clip.var() for clip in latents])


def local_rewards():
    energies, aspects = GTSVJReward(tiny_judge()), GTSVJReward(tiny_aspect_judge())
    return {
        "energies": energies,
        "aspects": aspects,
        "weighted": WeightedReward([("e", energies, 2.0), ("c", contrast, -1.0)]),
        "ensemble": RewardEnsemble({"e": energies, "a": aspects}, pessimism=0.5),
        "function": as_reward(contrast),
    }


KINDS = [*local_rewards()]


@pytest.fixture(scope="module")
def rewards():
    """One of each kind; the client's server scores aspects."""
    with (
        serving(GTSVJReward(tiny_aspect_judge())) as (_, port),
        client_of(port, clips_per_request=2) as client,
    ):
        yield {**local_rewards(), "client": client}


def assert_same(found, expected):
    """All fields equal, to 1e-5."""

    def close(a, b):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)

    close(found.rewards, expected.rewards)
    close(found.raw, expected.raw)
    close(found.parts, expected.parts)
    close(found.trajectory, expected.trajectory)
    close(found.aspect_trajectory, expected.aspect_trajectory)
    assert (found.uncertainty is None) == (expected.uncertainty is None)
    if found.uncertainty is not None:
        close(found.uncertainty, expected.uncertainty)
    assert found.notes == expected.notes


def scored(reward, latents, **options):
    with torch.no_grad():
        return reward.details(latents, space=tiny_space(), fps=8.0, **options)


@pytest.mark.parametrize("kind", [*KINDS, "client"])
def test_a_clip_scores_alone_as_in_company_and_in_order(rewards, kind):
    first, *others = mixed_clips()
    batch = [*others, first]  # the places in their parts are no order that undoes itself
    together = scored(rewards[kind], batch)
    alone = [scored(rewards[kind], clip[None]) for clip in batch]
    assert_same(together, RewardOutput.cat(alone))
    assert_same(scored(rewards[kind], batch[::-1]), together.rows([5, 4, 3, 2, 1, 0]))
    assert together.rewards.std() > 1e-3, "scores are all alike: the test proves nothing"


@pytest.mark.parametrize("kind", [*KINDS, "client"])
@pytest.mark.parametrize("normalize", [True, False])
def test_outputs_joined_are_the_output_of_the_joined_clips(rewards, kind, normalize):
    batch = mixed_clips()
    parts = [batch[:2], batch[2:3], batch[3:]]
    outputs = [scored(rewards[kind], part, normalize=normalize) for part in parts]
    whole = scored(rewards[kind], batch, normalize=normalize)
    assert_same(RewardOutput.cat(outputs), whole)
    assert_same(whole.rows([2, 0]), RewardOutput.cat([whole.rows([2]), whole.rows([0])]))


@pytest.mark.parametrize("kind", [*KINDS, "client"])
def test_calls_details_and_score_agree(rewards, kind):
    reward, batch = rewards[kind], mixed_clips()
    assert Reward in type(reward).__mro__
    assert as_reward(reward) is reward
    out = scored(reward, batch)
    with torch.no_grad():
        direct = reward.score(Clips(latents=batch, space=tiny_space(), fps=8.0))
        torch.testing.assert_close(reward(batch, space=tiny_space()), out.rewards)
    assert_same(direct, out)
    assert out.rewards.dtype == out.raw.dtype == torch.float32
    judged = kind in ("energies", "aspects", "client")
    assert len(out.trajectory) == (6 if judged else 0)
    assert out.aspects == (out.parts if judged else {})
    assert ("raw" in out.components) == judged
    assert out.notes == ((None,) * 6 if judged else ())
    assert (out.uncertainty is not None) == (kind == "ensemble")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["batch", "list"])
def test_gradients_reach_the_latents_of_each_clip(rewards, kind, form):
    latents = clips(3).requires_grad_()
    rewards[kind](latents if form == "batch" else list(latents))[1].backward()
    assert [bool(clip.any()) for clip in latents.grad] == [False, True, False]
    (direct,) = torch.autograd.grad(rewards[kind](latents[1:2]).sum(), latents)
    torch.testing.assert_close(latents.grad, direct, rtol=1e-4, atol=1e-6)


def test_a_server_that_refuses_a_part_says_which_clips_that_were(rewards):
    batch = mixed_clips()
    batch[3] = batch[3] * torch.nan
    given = Clips(latents=batch, space=tiny_space(), names=list("uvwxyz"))
    message = r"clip 3 \(x\), clip 5 \(z\), in this order: .*latents\[0\] has non-finite"
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        rewards["client"].score(given)


def test_a_weighted_sum_is_that_of_its_parts_and_its_components_are_named(rewards):
    out = scored(rewards["weighted"], mixed_clips())
    torch.testing.assert_close(out.rewards, 2 * out.parts["e"] - out.parts["c"])
    assert [*out.numbers()] == ["e", "c"]
    assert [*scored(rewards["aspects"], clips(2)).numbers()] == [
        "raw",
        "clear",
        "focus",
        "movement smoothness",
    ]
