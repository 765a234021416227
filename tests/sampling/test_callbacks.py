"""Rewards along the schedule, and steering by their gradient."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import CogVideoXDPMScheduler

from gtsvj_reward import GTSVJReward
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.reward import NonFiniteError
from gtsvj_reward.sampling import (
    RewardCallback,
    RewardGuidance,
    best_of_n,
    latent_space,
    predicted_clean_latents,
)
from gtsvj_reward.sampling.guidance import last_quarter
from gtsvj_reward.sampling.pipelines import as_clips
from tests.sampling.tiny import (
    CALL,
    Failing,
    Quadratic,
    cogvideox,
    cogvideox_scheduler,
    embeds,
    judge_reward,
    run,
    wan,
)
from tests.tiny import tiny_judge


def clips_of(pipe, latents):
    return as_clips(latent_space(pipe), latents, 9)


def test_rewards_of_each_step_and_nothing_changed(pipe):
    alone = run(pipe)
    expected = []
    with predicted_clean_latents(pipe) as seen:

        def note(_pipe, index, timestep, tensors):
            reward = Quadratic()(clips_of(pipe, seen.latest.clean)).item()
            expected.append((index, float(timestep), reward))
            return tensors

        run(pipe, callback_on_step_end=note)
    with RewardCallback(pipe, Quadratic(), num_frames=9) as recorder:
        assert torch.equal(run(pipe, callback_on_step_end=recorder), alone)
    assert [(r["step"], r["timestep"], r["rewards"]) for r in recorder.records] == [
        (index, timestep, [pytest.approx(reward, rel=1e-5)]) for index, timestep, reward in expected
    ]
    assert expected[0][2] != pytest.approx(expected[-1][2], rel=1e-3)


def test_the_last_record_is_the_score_of_the_finished_clip():
    pipe = cogvideox("1.5")
    reward = judge_reward(pipe, "1.5")
    with RewardCallback(pipe, reward, num_frames=9, steps=[3], fps=8.0) as recorder:
        latents = run(pipe, callback_on_step_end=recorder)
    assert [record["step"] for record in recorder.records] == [3]
    score = reward(latents, space=latent_space(pipe), num_frames=9)
    assert recorder.records[0]["rewards"] == pytest.approx(score.tolist(), rel=1e-4)


def test_several_clips_get_a_reward_each():
    pipe = cogvideox()
    with RewardCallback(pipe, Quadratic(), num_frames=9, steps=[1]) as recorder:
        both = run(
            pipe,
            callback_on_step_end=recorder,
            **embeds(clips=2),
            latents=torch.cat([torch.randn(1, 3, 4, 4, 6), torch.randn(1, 3, 4, 4, 6)]),
        )
    assert len(both) == len(recorder.records[0]["rewards"]) == 2
    assert len(set(recorder.records[0]["rewards"])) == 2


@pytest.mark.parametrize("cls", [RewardCallback, RewardGuidance])
def test_a_reward_that_raises_leaves_the_pipeline_as_it_was(cls):
    pipe = cogvideox()
    alone = run(pipe)
    extra = {"scale": 0.1} if cls is RewardGuidance else {}
    callback = cls(pipe, Failing(), num_frames=9, steps=[0, 1], **extra)
    with pytest.raises(RuntimeError, match="the reward broke"), callback:
        run(pipe, callback_on_step_end=callback)
    assert "step" not in vars(pipe.scheduler)
    assert torch.equal(run(pipe), alone)


@pytest.mark.parametrize("cls", [RewardCallback, RewardGuidance])
def test_callbacks_refuse_misuse(cls):
    pipe = cogvideox()
    extra = {"num_frames": 9, **({"scale": 0.1} if cls is RewardGuidance else {})}
    callback = cls(pipe, Quadratic(), **extra)
    with pytest.raises(RuntimeError, match="inside the block"):
        run(pipe, callback_on_step_end=callback)
    with callback:
        with pytest.raises(RuntimeError, match="the pipeline that was given"):
            run(cogvideox(), callback_on_step_end=callback)
        with pytest.raises(RuntimeError, match="in use already"), callback:
            pass
        run(pipe, callback_on_step_end=callback)
    with pytest.raises(ValueError, match=r"indices >= 0, at least one, got \[-1\]"):
        cls(pipe, Quadratic(), steps=[-1], **extra)
    with pytest.raises(ValueError, match=r"got \[\]"):
        cls(pipe, Quadratic(), steps=[], **extra)
    late = cls(pipe, Quadratic(), steps=[2, 4], **extra)
    with pytest.raises(ValueError, match="step 4 was chosen, but this run has 4 steps"), late:
        run(pipe, callback_on_step_end=late)
    assert "step" not in vars(pipe.scheduler)


def test_a_foreign_judge_is_refused():
    pipe = wan()
    foreign = GTSVJReward(tiny_judge())
    with (
        RewardCallback(pipe, foreign, num_frames=9) as recorder,
        pytest.raises(LatentSpaceError, match="got latents of `wan"),
    ):
        run(pipe, callback_on_step_end=recorder)


def test_the_last_quarter():
    # Of 50: 50 // 4 = 12, so 38 to 49. At least one step always.
    assert list(last_quarter(50)) == list(range(38, 50))
    assert [list(last_quarter(n)) for n in (1, 4, 8)] == [[0], [3], [6, 7]]


def test_guidance_is_the_formula(pipe):
    before = {}

    def note(_pipe, index, _timestep, tensors):
        before[index] = (seen.latest.noisy, tensors["latents"], seen.latest.clean)
        return tensors

    # Runs agree up to step 2, so the change there can be worked out from the run without it.
    with predicted_clean_latents(pipe) as seen:
        run(pipe, callback_on_step_end=note)
    changed = {}
    guidance = RewardGuidance(pipe, Quadratic(), num_frames=9, scale=0.3, steps=[2])

    def guided(owner, index, timestep, tensors):
        tensors = guidance(owner, index, timestep, tensors)
        changed[index] = tensors["latents"]
        return tensors

    with guidance:
        run(pipe, callback_on_step_end=guided)
    noisy, following, clean = before[2]
    direction = torch.zeros_like(clean)
    # By hand: the gradient of -(x - 0.7)^2 is 2 (0.7 - x), and 0 on padding frames in front.
    length = clips_of(pipe, clean).shape[1]
    axis = 1 if latent_space(pipe).layout == "BTCHW" else 2
    inner = direction.narrow(axis, clean.shape[axis] - length, length)
    inner.copy_(2 * (0.7 - clean.narrow(axis, clean.shape[axis] - length, length)))
    step = 0.3 * (following - noisy).norm() * direction / direction.norm()
    torch.testing.assert_close(changed[2], following + step, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed[1], before[1][1], rtol=0, atol=0)
    assert step.norm() > 0.1
    (record,) = guidance.records
    assert record["step"] == 2
    assert record["update_norms"] == pytest.approx([(following - noisy).norm().item()], rel=1e-4)
    assert record["gradient_norms"] == pytest.approx([direction.norm().item()], rel=1e-4)


@pytest.mark.parametrize("kind", ["cogvideox", "wan"])
def test_guidance_raises_the_reward_with_the_scale_up_to_the_bound(kind):
    pipe = cogvideox() if kind == "cogvideox" else wan()
    reward = Quadratic()
    last = {}

    def note(_pipe, index, _timestep, tensors):
        last["step"] = seen.latest
        return tensors

    with predicted_clean_latents(pipe) as seen:
        unguided = reward(clips_of(pipe, run(pipe, callback_on_step_end=note))).item()
    # Both schedules end at sigma = 0, where x' = x0. Guided there and nowhere else, the clip is
    # x0 + s d u, with d = |x' - x| and u the unit vector from x0 to the target, at distance r. Its
    # reward is -(r - s d)^2: rising in s up to s = r / d, where it is 0, and back to the unguided
    # reward -r^2 at s = 2 r / d.
    step = last["step"]
    d = (step.following - step.noisy).norm().item()
    r = math.sqrt(-unguided)

    def guided(scale):
        with RewardGuidance(pipe, reward, num_frames=9, scale=scale) as guidance:
            return reward(clips_of(pipe, run(pipe, callback_on_step_end=guidance))).item()

    shares = [0.01, 0.2, 0.4, 0.6, 0.8, 1.0]
    rewards = [unguided, *(guided(share * r / d) for share in shares)]
    assert all(later > earlier for earlier, later in pairwise(rewards))
    for share, found in zip(shares, rewards[1:], strict=True):
        assert found == pytest.approx(-((r - share * r) ** 2), rel=1e-3, abs=1e-3 * r)
    assert guided(1.9 * r / d) == pytest.approx(-((0.9 * r) ** 2), rel=1e-3)
    assert guided(2.1 * r / d) < unguided


def test_guidance_by_a_judge_raises_its_score():
    pipe = cogvideox("5b")
    reward = judge_reward(pipe, "5b")

    def score(latents):
        return reward(latents, space=latent_space(pipe), num_frames=9).item()

    with RewardGuidance(pipe, reward, num_frames=9, scale=0.02, fps=8.0) as guidance:
        guided = run(pipe, callback_on_step_end=guidance)
    assert not guided.requires_grad
    assert [record["step"] for record in guidance.records] == [3]
    assert score(guided) > score(run(pipe))
    assert all(p.grad is None for p in reward.judge.parameters())


def test_each_clip_moves_along_its_own_gradient():
    pipe = cogvideox("5b")
    start = torch.randn(2, 3, 4, 4, 6)
    reward = judge_reward(pipe, "5b")

    def guided(latents):
        with RewardGuidance(pipe, reward, num_frames=9, scale=0.3, steps=[1, 3]) as guidance:
            text = embeds(clips=len(latents))
            return run(pipe, callback_on_step_end=guidance, **text, latents=latents)

    torch.testing.assert_close(
        guided(start), torch.cat([guided(start[:1]), guided(start[1:])]), rtol=1e-4, atol=1e-4
    )


def test_guidance_where_gradients_are_forbidden():
    pipe = cogvideox()
    reward = judge_reward(pipe)
    with RewardGuidance(pipe, reward, num_frames=9, scale=0.1) as guidance:
        expected = run(pipe, callback_on_step_end=guidance)
        with torch.inference_mode():
            found = run(pipe, callback_on_step_end=guidance)
    torch.testing.assert_close(found.clone(), expected)


def test_low_precision_latents_keep_their_type():
    pipe = cogvideox().to(torch.bfloat16)
    text = {name: value.bfloat16() for name, value in embeds().items()}
    with RewardGuidance(pipe, Quadratic(), num_frames=9, scale=0.3) as guidance:
        guided = run(pipe, callback_on_step_end=guidance, **text)
    assert guided.dtype == torch.bfloat16
    assert (guided - run(pipe, **text)).abs().max() > 0


def test_guidance_and_recording_in_one_best_of_n():
    pipe = cogvideox(scheduler=cogvideox_scheduler(CogVideoXDPMScheduler))
    plain = best_of_n(pipe, Quadratic(), None, 2, **CALL, call_arguments=embeds())
    with (
        RewardCallback(pipe, Quadratic(), num_frames=9) as recorder,
        RewardGuidance(pipe, Quadratic(), num_frames=9, scale=0.1) as guidance,
    ):

        def both(owner, index, timestep, tensors):
            return guidance(owner, index, timestep, recorder(owner, index, timestep, tensors))

        call = {**embeds(), "callback_on_step_end": both}
        guided = best_of_n(pipe, Quadratic(), None, 2, **CALL, call_arguments=call)
    assert (guided.scores > plain.scores).all()
    assert [record["step"] for record in recorder.records] == [0, 1, 2, 3] * 2
    assert len(guidance.records) == 2


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        (lambda x, **_: x.detach().mean((1, 2, 3, 4)), ValueError, "scores without a graph"),
        (lambda x, **_: x.mean((1, 2, 3, 4)) * 0, ValueError, "clip 0 is 0"),
        (lambda x, **_: (x * 0).sum((1, 2, 3, 4)).sqrt(), NonFiniteError, "not finite"),
    ],
)
def test_rewards_that_cannot_guide_are_refused(reward, error, message):
    pipe = cogvideox()
    guidance = RewardGuidance(pipe, reward, num_frames=9, scale=0.1)
    with pytest.raises(error, match=message), guidance:
        run(pipe, callback_on_step_end=guidance)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scales_that_do_not_raise_the_reward_are_refused(scale):
    with pytest.raises(ValueError, match="must be > 0 and finite"):
        RewardGuidance(cogvideox(), Quadratic(), num_frames=9, scale=scale)


def test_guidance_needs_the_latents():
    pipe = cogvideox()
    guidance = RewardGuidance(pipe, Quadratic(), num_frames=9, scale=0.1)
    with pytest.raises(ValueError, match=r"got \['prompt_embeds'\]"), guidance:
        run(
            pipe,
            callback_on_step_end=guidance,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
