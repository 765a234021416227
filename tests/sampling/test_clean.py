"""Predicted clean latents equal what schedulers say, where they say it, and cost nothing."""

from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from gtsvj_reward.sampling import predicted_clean_latents
from gtsvj_reward.sampling.clean import NoiseLevel, clean_latents
from tests.sampling.tiny import cogvideox, cogvideox_scheduler, run, stochastic_flow, wan

SHAPE = (2, 3, 4, 2, 2)
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def noise(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def unipc(**changes):
    return UniPCMultistepScheduler(**{**FLOW, **changes})


def walk(scheduler, step):
    """Run a schedule of 5 steps on made-up model outputs; `step` takes one and returns x'."""
    scheduler.set_timesteps(5)
    latents = noise(100)
    found = []
    with predicted_clean_latents(SimpleNamespace(scheduler=scheduler)) as seen:
        for index, timestep in enumerate(scheduler.timesteps):
            before, output = latents, noise(index)
            latents, reported = step(scheduler, index, timestep, output, before)
            assert seen.latest.index == index
            assert seen.latest.timestep == float(timestep)
            assert seen.latest.noisy is before
            assert seen.latest.following is latents
            found.append((index, timestep, output, before, seen.latest.clean, reported))
        assert seen.steps_seen == 5
    return found


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("cls", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_equal_to_what_a_cogvideox_scheduler_returns(cls, prediction):
    old = {}

    def step(scheduler, index, timestep, output, latents):
        if cls is CogVideoXDDIMScheduler:
            out = scheduler.step(output, timestep, latents)
            return out.prev_sample, out.pred_original_sample
        back = scheduler.timesteps[index - 1] if index else None
        old["x0"] = scheduler.step(output, old.get("x0"), timestep, back, latents)
        following, old["x0"] = old["x0"]
        return following, old["x0"]

    # A terminal signal-to-noise ratio above zero: epsilon would be divided by zero otherwise.
    scheduler = cogvideox_scheduler(cls, prediction_type=prediction, rescale_betas_zero_snr=False)
    for *_, clean, reported in walk(scheduler, step):
        torch.testing.assert_close(clean, reported, rtol=1e-5, atol=1e-5)


def plain_step(scheduler, _index, timestep, output, latents):
    return scheduler.step(output, timestep, latents, return_dict=False)[0], None


@pytest.mark.parametrize("make", [FlowMatchEulerDiscreteScheduler, stochastic_flow])
def test_flow_matching_number_by_number(make):
    scheduler = make(shift=3.0)
    for index, _, output, before, clean, _ in walk(scheduler, plain_step):
        # x = (1 - s) x0 + s e and u = e - x0, so x0 = x - s u; by hand, s = 3 t / (1 + 2 t) with t
        # from 1 to 1/1000 in equal steps (the last after its own shift: 3/1002).
        ends = 1.0, 3 / 1002
        t = ends[0] + (ends[1] - ends[0]) * index / 4
        sigma = 3 * t / (1 + 2 * t)
        for place in ((0, 0, 0, 0, 0), (1, 2, 3, 1, 1)):
            expected = before[place].item() - sigma * output[place].item()
            assert clean[place].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_flow_sigmas": False, "prediction_type": "epsilon"},
        {"use_flow_sigmas": False, "prediction_type": "v_prediction"},
        {"use_flow_sigmas": False, "prediction_type": "sample"},
    ],
)
def test_equal_to_what_unipc_works_with(changes):
    reports = []

    class Watched(UniPCMultistepScheduler):
        def convert_model_output(self, *args, **keywords):
            reports.append(super().convert_model_output(*args, **keywords))
            return reports[-1]

    scheduler = unipc(**changes)
    found = walk(scheduler, plain_step)
    other = Watched(**{**FLOW, **changes})
    other.set_timesteps(5)
    for _, timestep, output, before, clean, _ in found:
        other.step(output, timestep, before)
        torch.testing.assert_close(clean, reports[-1], rtol=1e-5, atol=1e-5)


PIPES = {
    "ddim": lambda: cogvideox("1.5"),
    "dpm": lambda: cogvideox(scheduler=cogvideox_scheduler(CogVideoXDPMScheduler)),
    "flow": wan,
    "unipc": lambda: wan(unipc()),
}


@pytest.mark.parametrize("name", PIPES)
def test_sampling_is_the_same_and_costs_no_pass_more(name):
    pipe = PIPES[name]()
    passes, steps = [], []
    pipe.transformer.register_forward_hook(lambda *_: passes.append(1))
    alone = run(pipe, 3)
    bare = len(passes)

    def note(_pipe, index, timestep, tensors):
        steps.append((index, seen.latest.index, float(timestep) == seen.latest.timestep))
        return tensors

    with predicted_clean_latents(pipe) as seen:
        for _ in range(2):
            torch.testing.assert_close(
                run(pipe, 3, callback_on_step_end=note), alone, rtol=0, atol=0
            )
    assert len(passes) == 3 * bare
    assert steps == [(index, index, True) for index in range(4)] * 2
    # Schedules end clean: the last prediction is the clip. (The others' last steps do the same.)
    torch.testing.assert_close(seen.latest.clean, alone, rtol=1e-4, atol=1e-4)


def test_low_precision_latents_are_predicted_in_float32():
    level = NoiseLevel(0.6, 0.8, "v_prediction")
    clean = clean_latents(level, noise(0).bfloat16(), noise(1).bfloat16())
    assert clean.dtype == torch.float32
    torch.testing.assert_close(
        clean, 0.6 * noise(1).bfloat16().float() - 0.8 * noise(0).bfloat16().float()
    )


def test_golden():
    # alpha = 0.6, sigma = 0.8, x0 = 2, e = -1: x = 0.4, v = alpha e - sigma x0 = -2.2, u = -3.
    noisy = torch.full((1, 1, 1, 1, 1), 0.4)
    for prediction, output in (("epsilon", -1.0), ("v_prediction", -2.2), ("sample", 2.0)):
        found = clean_latents(
            NoiseLevel(0.6, 0.8, prediction), torch.full_like(noisy, output), noisy
        )
        assert found.item() == pytest.approx(2, abs=1e-6)
    # Flow, sigma = 0.8: x = 0.2 * 2 + 0.8 * -1 = -0.4.
    flow = NoiseLevel(0.2, 0.8, "flow_prediction")
    found = clean_latents(flow, torch.full_like(noisy, -3.0), torch.full_like(noisy, -0.4))
    assert found.item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("before", [False, True])
def test_the_scheduler_is_put_back_after_an_exception_too(before):
    pipe = cogvideox()
    if before:  # somebody else stands in for the method already
        pipe.scheduler.step = pipe.scheduler.step
    own = dict(vars(pipe.scheduler))
    with predicted_clean_latents(pipe), predicted_clean_latents(pipe) as inner:
        run(pipe)
        assert inner.steps_seen == 4
    assert vars(pipe.scheduler).get("step") == own.get("step")

    def broken(*_):
        raise KeyError("stop")

    with pytest.raises(KeyError), predicted_clean_latents(pipe):
        run(pipe, callback_on_step_end=broken)
    assert vars(pipe.scheduler).get("step") == own.get("step")
    assert ("step" in vars(pipe.scheduler)) == before


def test_no_step_yet():
    with (
        predicted_clean_latents(cogvideox()) as seen,
        pytest.raises(RuntimeError, match="no denoising step yet"),
    ):
        _ = seen.latest


class Subclass(CogVideoXDDIMScheduler):
    """May mean anything."""


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDIMScheduler(), "steps of DDIMScheduler; known schedulers: CogVideoXDDIM"),
        (Subclass(), "steps of Subclass"),
        (UniPCMultistepScheduler(thresholding=True), "thresholding=True"),
    ],
)
def test_other_schedulers_are_refused_by_name(scheduler, message):
    pipe = SimpleNamespace(scheduler=scheduler)
    with pytest.raises(ValueError, match=message), predicted_clean_latents(pipe):
        pass
    assert "step" not in vars(scheduler)


def test_numbers_that_say_nothing_of_the_clean_latents_are_refused():
    with pytest.raises(ValueError, match="begins at pure noise"):
        clean_latents(NoiseLevel(0.0, 1.0, "epsilon"), noise(0), noise(1))
    with pytest.raises(ValueError, match="got 'score'"):
        clean_latents(NoiseLevel(0.5, 0.5, "score"), noise(0), noise(1))


def test_steps_with_a_noise_level_per_token_are_refused():
    scheduler = FlowMatchEulerDiscreteScheduler()
    if "per_token_timesteps" not in signature(scheduler.step).parameters:
        pytest.skip("this diffusers has one noise level per step")
    scheduler.set_timesteps(5)
    with (
        predicted_clean_latents(SimpleNamespace(scheduler=scheduler)),
        pytest.raises(ValueError, match="per_token_timesteps"),
    ):
        scheduler.step(
            noise(0), scheduler.timesteps[0], noise(1), per_token_timesteps=torch.ones(2, 3)
        )
