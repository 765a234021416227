"""Laws of the steps of flow matching, on a Gaussian whose flow is known."""

import math

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from gtsvj_reward.alignment import (
    flow_levels,
    flow_noise,
    flow_scheduler,
    flow_transition,
    log_probability,
)

EULER, UNIPC = FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
MEAN, SPREAD = 1.5, 0.4
"""Of the clean latents in the laws."""
SDES = {"flow-grpo": 0.7, "dance-grpo": 0.5, "ddim": 0.8}
WAN = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
MOCHI = {"invert_sigmas": True}


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def levels_scheduler(levels, **changes):
    """An Euler scheduler with these noise levels and then 0."""
    scheduler = EULER(**changes)
    scheduler.set_timesteps(sigmas=levels)
    return scheduler


def variance_at(level):
    return ((1 - level) * SPREAD) ** 2 + level**2


def velocity(noisy, level):
    """E[ε - x₀ | x] for x₀ ~ N(MEAN, SPREAD²)."""
    gap = (noisy - (1 - level) * MEAN) / variance_at(level)
    return level * gap - (MEAN + (1 - level) * SPREAD**2 * gap)


def affine(scheduler, index, eta, sde):
    """Slope and offset of the mean of a step of that flow, and the deviation, from the code."""
    noisy = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1, 1)
    level = flow_levels(scheduler)[index]
    sign = -1 if scheduler.config.invert_sigmas else 1
    output = sign * velocity(noisy, level)
    step = flow_transition(scheduler, output, index, noisy, eta=eta, sde=sde)
    at_0, at_1 = step.mean.flatten().tolist()
    return at_1 - at_0, at_0, step.std


def expected_step(level, following, eta, sde):
    """The same, worked out on paper from dx = (v + g² ε̂ / 2σ) dσ + g dw."""
    kept = 1 / variance_at(level)
    noise = level * kept, -level * kept * (1 - level) * MEAN
    clean_slope = (1 - level) * SPREAD**2 * kept
    clean = clean_slope, MEAN - clean_slope * (1 - level) * MEAN
    if sde == "ddim":
        # N(x' | x, x₀) of the forward process has variance σ'² - (σ' α σ' / α' σ)² at η = 1.
        back = following**2 * (1 - level) / ((1 - following) * level)
        std = eta * math.sqrt(following**2 - back**2)
        left = math.sqrt(following**2 - std**2)
        return *((1 - following) * c + left * n for c, n in zip(clean, noise, strict=True)), std
    ratio = level / (1 - level) if sde == "flow-grpo" else 1.0
    g, length = eta * math.sqrt(ratio), level - following
    pull = g**2 / (2 * level)
    drift = [n - c + pull * n for c, n in zip(clean, noise, strict=True)]
    return 1 - length * drift[0], -length * drift[1], g * math.sqrt(length)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("sde", SDES)
def test_each_step_on_a_gaussian_is_the_exact_recursion_of_the_discretised_sde(sde, inverted):
    given = [0.9, 0.7, 0.4, 0.15]
    own = given if not inverted else [1 - level for level in given]
    scheduler = levels_scheduler(given)
    if inverted:
        scheduler = levels_scheduler(given, invert_sigmas=True)
        assert scheduler.sigmas[:-1].tolist() == pytest.approx(own)
    levels = flow_levels(scheduler)
    assert levels == pytest.approx([*given, 0.0])
    mean, variance = (1 - levels[0]) * MEAN, variance_at(levels[0])
    for index in range(3):
        slope, offset, std = affine(scheduler, index, SDES[sde], sde)
        expected = expected_step(levels[index], levels[index + 1], SDES[sde], sde)
        assert (slope, offset, std) == pytest.approx(expected, rel=1e-5)
        found = slope * mean + offset, slope**2 * variance + std**2
        a, b, s = expected
        mean, variance = a * mean + b, a**2 * variance + s**2
        assert found == pytest.approx((mean, variance), rel=1e-5)


def marginal_error(steps, eta, sde):
    """How far mean and variance at σ = 0.1 are from the flow's, begun exactly at σ = 0.9."""
    levels = torch.linspace(0.9, 0.1, steps + 1).tolist()
    scheduler = levels_scheduler(levels)
    levels = flow_levels(scheduler)
    mean, variance = (1 - levels[0]) * MEAN, variance_at(levels[0])
    for index in range(steps):
        slope, offset, std = affine(scheduler, index, eta, sde)
        mean, variance = slope * mean + offset, slope**2 * variance + std**2
    last = levels[steps]
    return abs(mean - (1 - last) * MEAN), abs(variance - variance_at(last))


@pytest.mark.parametrize(("sde", "eta"), [("flow-grpo", 0.0), *SDES.items()])
def test_marginals_approach_those_of_the_flow_at_first_order(sde, eta):
    """The variance does; the mean, (1 - σ) times that of the clips, is straight and exact."""
    coarse, fine = marginal_error(100, eta, sde), marginal_error(200, eta, sde)
    assert max(coarse[0], fine[0]) < 1e-6
    assert 1e-5 < coarse[1] < 0.02
    assert 0.45 < fine[1] / coarse[1] < 0.55


@pytest.mark.parametrize("sde", SDES)
def test_only_ddim_leaves_as_much_noise_as_belongs_to_the_next_level(sde):
    """A perfect prediction of one clip: what is not x₀ in x' is noise of a known variance."""
    scheduler = levels_scheduler([0.8, 0.5, 0.2])
    level, following = flow_levels(scheduler)[:2]
    clean, noise = draw(1, 1, 1, 1, 4, dtype=torch.float64), torch.zeros(1, 1, 1, 1, 4).double()

    steps = []
    for amount in (0.0, 1.0):
        noisy = (1 - level) * clean + level * (noise + amount)
        output = noise + amount - clean
        steps.append(flow_transition(scheduler, output, 0, noisy, eta=SDES[sde], sde=sde))
    torch.testing.assert_close(steps[0].mean, (1 - following) * clean, rtol=1e-6, atol=1e-7)
    kept = (steps[1].mean - steps[0].mean)[0, 0, 0, 0, 0].item()
    variance = kept**2 + steps[0].std ** 2
    if sde == "ddim":
        assert variance == pytest.approx(following**2, rel=1e-6)
    else:
        assert variance > 1.01 * following**2


def test_short_steps_of_ddim_are_those_of_flow_grpo_at_other_numbers():
    scheduler = levels_scheduler([0.6, 0.599])
    noisy, output = draw(1, 1, 1, 1, 4), draw(1, 1, 1, 1, 4, seed=1)
    one = flow_transition(scheduler, output, 0, noisy, eta=0.5, sde="ddim")
    other = flow_transition(scheduler, output, 0, noisy, eta=0.5 * 2**0.5, sde="flow-grpo")
    assert one.std == pytest.approx(other.std, rel=1e-2)
    torch.testing.assert_close(one.mean - noisy, other.mean - noisy, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("first", [1.0, 1 - 1e-6])
def test_the_first_step_of_flow_grpo_by_hand(first):
    """From σ = 1 to 3/4: g = 0.7 √(1 / (1 - 3/4)) = 1.4, as in the code of its authors.

    So h = 1/4, std = 1.4 / 2 = 0.7, and g² h / 2σ = 1.96 / 8 = 0.245 of ε̂ = x is removed.
    """
    noisy, output = draw(1, 1, 1, 1, 4), draw(1, 1, 1, 1, 4, seed=1)
    scheduler = levels_scheduler([first, 0.75, 0.5])
    step = flow_transition(scheduler, output, 0, noisy, eta=0.7, sde="flow-grpo")
    assert step.std == pytest.approx(0.7, rel=1e-5)
    torch.testing.assert_close(step.mean, noisy - output / 4 - 0.245 * noisy, rtol=1e-4, atol=1e-5)


SCHEDULERS = {
    "euler": lambda: EULER(shift=3.0),
    "dynamic": lambda: EULER(use_dynamic_shifting=True, shift_terminal=0.1),
    "inverted": lambda: EULER(**MOCHI),
    "unipc": lambda: flow_scheduler(UNIPC(**WAN)),
    "unipc-bh2": lambda: flow_scheduler(UNIPC(**WAN, solver_order=3, solver_type="bh2")),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [2, 7])
def test_without_noise_it_is_the_step_of_diffusers_bitwise(name, steps):
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(steps, **({"mu": 0.8} if name == "dynamic" else {}))
    noisy = draw(2, 3, 4, 2, 2)
    for index, timestep in enumerate(scheduler.timesteps):
        output = draw(2, 3, 4, 2, 2, seed=index + 1)
        found = flow_transition(scheduler, output, index, noisy, eta=0.0)
        stock = scheduler.step(output, timestep, noisy).prev_sample
        assert found.std == 0
        assert torch.equal(found.mean, stock)
        noisy = stock
    torch.testing.assert_close(found.mean, found.clean)


def test_unipc_of_first_order_is_euler_but_for_rounding():
    """On the levels of UniPC, which begins just below pure noise."""
    unipc = SCHEDULERS["unipc"]()
    unipc.set_timesteps(5)
    euler = levels_scheduler(unipc.sigmas[:-1].tolist())
    noisy, output = draw(1, 2, 4, 2, 2), draw(1, 2, 4, 2, 2, seed=1)
    for index in range(5):
        for sde, eta in SDES.items():
            one = flow_transition(unipc, output, index, noisy, eta=eta, sde=sde)
            other = flow_transition(euler, output, index, noisy, eta=eta, sde=sde)
            torch.testing.assert_close(one.mean, other.mean, rtol=1e-4, atol=1e-4)
            assert one.std == pytest.approx(other.std)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("sde", SDES)
def test_stochastic_steps_are_finite_and_the_last_ends_without_noise(name, sde):
    scheduler = SCHEDULERS[name]()
    scheduler.set_timesteps(4, **({"mu": 0.8} if name == "dynamic" else {}))
    noisy, output = draw(1, 2, 4, 2, 2), draw(1, 2, 4, 2, 2, seed=1)
    steps = [
        flow_transition(scheduler, output, index, noisy, eta=SDES[sde], sde=sde)
        for index in range(4)
    ]
    assert all(0 < step.std < 1 for step in steps[:-1])
    assert all(step.mean.isfinite().all() for step in steps)
    assert steps[-1].std == 0
    torch.testing.assert_close(steps[-1].mean, steps[-1].clean)


def test_the_gradient_of_a_log_probability_equals_central_differences():
    scheduler = levels_scheduler([0.9, 0.5, 0.2])
    noisy, output, following, direction = (
        draw(2, 2, 1, 2, 2, seed=seed, dtype=torch.float64) for seed in range(4)
    )

    def density(output):
        step = flow_transition(scheduler, output, 1, noisy, eta=0.7)
        return log_probability(following, step.mean, step.std).sum()

    (gradient,) = torch.autograd.grad(density(output.requires_grad_()), output)
    with torch.no_grad():
        ahead, behind = (density(output + sign * 1e-5 * direction) for sign in (1, -1))
    along = (gradient * direction).sum().item()
    assert abs(along) > 1e-3
    assert ((ahead - behind) / 2e-5).item() == pytest.approx(along, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, MOCHI])
def test_what_a_model_should_say_of_noised_clips_gives_the_clips_back(changes):
    scheduler = EULER(**changes)
    scheduler.set_timesteps(4)
    clean, noise = draw(2, 3, 4, 2, 2), draw(2, 3, 4, 2, 2, seed=1)
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        noisy, target = flow_noise(scheduler, clean, noise, timestep)
        level = flow_levels(scheduler)[index]
        torch.testing.assert_close(noisy, (1 - level) * clean + level * noise)
        step = flow_transition(scheduler, target, index, noisy, eta=0.7)
        torch.testing.assert_close(step.clean, clean, rtol=1e-4, atol=1e-5)
    each, _ = flow_noise(scheduler, clean, noise, torch.tensor([250, 750]))
    for index, timestep in enumerate((250, 750)):
        alone, _ = flow_noise(scheduler, clean[:1], noise[:1], timestep)
        if index == 0:
            torch.testing.assert_close(each[:1], alone)
        else:
            assert (each[:1] - alone).abs().max() > 0.1


@pytest.mark.parametrize("kind", [EULER, UNIPC])
def test_levels_follow_the_shift(kind):
    """σ = s u / (1 + (s - 1) u): for u = 1, 2/3, 1/3 and s = 2 these are 1, 4/5, 1/2."""
    scheduler = flow_scheduler(kind(**(WAN if kind is UNIPC else {})), shift=2.0)
    scheduler.set_timesteps(sigmas=np.array([1.0, 2 / 3, 1 / 3]))
    assert flow_levels(scheduler) == pytest.approx((1.0, 0.8, 0.5, 0.0), abs=1e-5)


def test_schedulers_that_take_no_single_steps_of_a_flow_are_refused():
    noisy = draw(1, 1, 4, 2, 2)
    cases = {
        "solver_order=1, got 2": UNIPC(**WAN),
        "disable_corrector": UNIPC(**WAN, solver_order=1),
        "use_flow_sigmas=True": UNIPC(solver_order=1),
        "stochastic_sampling=False, got True": EULER(stochastic_sampling=True),
        "got DDIMScheduler": DDIMScheduler(),
    }
    for words, scheduler in cases.items():
        with pytest.raises(ValueError, match=words):
            flow_transition(scheduler, noisy, 0, noisy, eta=0.0)
    for scheduler in (UNIPC(), DDIMScheduler()):
        with pytest.raises(ValueError, match="expected a"):
            flow_scheduler(scheduler)
    with pytest.raises(ValueError, match="from the clip's size"):
        flow_scheduler(EULER(use_dynamic_shifting=True), shift=3.0)
    with pytest.raises(ValueError, match="`shift` must be positive"):
        flow_scheduler(EULER(), shift=0.0)


def test_arguments_are_checked():
    scheduler, noisy = levels_scheduler([0.9, 0.5]), draw(1, 1, 4, 2, 2)
    for index in (-1, 2):
        with pytest.raises(ValueError, match=f"0..1, a step's, got {index}"):
            flow_transition(scheduler, noisy, index, noisy, eta=0.0)
    for eta, sde in ((-0.1, "flow-grpo"), (math.inf, "dance-grpo"), (1.1, "ddim")):
        with pytest.raises(ValueError, match="`eta` must be at least 0"):
            flow_transition(scheduler, noisy, 0, noisy, eta=eta, sde=sde)
