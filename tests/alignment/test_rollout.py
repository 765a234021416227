import pytest
import torch

from gtsvj_reward.alignment import (
    Policy,
    differentiable_sample,
    log_probability,
    predicted_sample,
    rollout,
    schedule,
    step_taken,
    transition,
)
from gtsvj_reward.losses import clipped_policy_loss
from tests.alignment.tiny import SIZE, TEXTS, moved, tiny_pipeline

KEYS = [(0, 1), (0, 2)]


@pytest.mark.parametrize("steps", [5, 6, 7])
def test_the_ratio_is_exactly_1_before_the_first_update(policy, steps):
    moved(policy)
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=steps, eta=1.0)
    # the last step ends without noise
    assert set(made.log_probabilities) == set(range(steps - 1))
    for index, old in made.log_probabilities.items():
        step = transition(policy, made.path[index], made.timesteps[index], made.prompts, 1.0)
        now = log_probability(made.path[index + 1], step.mean, step.std)
        assert now.requires_grad
        found = clipped_policy_loss(now, old, torch.ones(2), 1e-4)
        assert torch.equal(found.ratio, torch.ones(2))
        assert torch.equal(now.detach(), old)


@pytest.mark.parametrize("elements", ["mean", "sum"])
def test_a_step_taken_before_is_as_likely_as_it_was_and_knows_its_divergence(policy, elements):
    moved(policy)
    prompts = policy.encode(TEXTS)
    made = rollout(policy, prompts, KEYS, steps=3, eta=0.7, elements=elements)
    for index, old in made.log_probabilities.items():
        schedule(policy, 10)  # as an evaluation in between
        now, kl = step_taken(policy, made, index)
        assert torch.equal(now.detach(), old)
        step = transition(policy, made.path[index], made.timesteps[index], prompts, 0.7)
        with policy.reference():
            mean = transition(policy, made.path[index], made.timesteps[index], prompts, 0.7).mean
        gap = (step.mean - mean).square().flatten(1) / (2 * step.std**2)
        expected = gap.mean(1) if elements == "mean" else gap.sum(1)
        torch.testing.assert_close(kl, expected)
        assert kl.min() > 0
        assert all(
            g is not None
            for g in torch.autograd.grad((now + kl).sum(), list(policy.parameters().values()))
        )


def test_with_other_companions_the_log_ratio_is_rounding(policy):
    moved(policy)
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=5, eta=1.0)
    for index, old in made.log_probabilities.items():
        here, following = made.path[index][:1], made.path[index + 1][:1]
        alone = transition(policy, here, made.timesteps[index], policy.encode(TEXTS[:1]), 1.0)
        now = log_probability(following, alone.mean, alone.std)
        assert (now - old[:1]).abs().item() < 1e-5


def test_the_ratio_moves_when_the_policy_does(policy):
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=5, eta=1.0)
    moved(policy)
    step = transition(policy, made.path[1], made.timesteps[1], made.prompts, 1.0)
    now = log_probability(made.path[2], step.mean, step.std)
    assert (now - made.log_probabilities[1]).abs().min() > 1e-4


def test_each_step_adds_standard_normal_noise_of_its_own(policy):
    """Mean, variance and correlations of what stands between a step's mean and its outcome."""
    prompts = policy.encode(TEXTS * 8)
    made = rollout(policy, prompts, [(0, k) for k in range(16)], steps=4, eta=1.0)
    noises = [made.path[0].flatten()]
    for index in made.log_probabilities:
        step = transition(policy, made.path[index], made.timesteps[index], prompts, 1.0)
        noises.append(((made.path[index + 1] - step.mean) / step.std).flatten().detach())
    table = torch.stack(noises).double()  # (start and steps, element)
    spread = 4 / table.shape[1] ** 0.5
    torch.testing.assert_close(table.mean(1), torch.zeros(4).double(), rtol=0, atol=spread)
    torch.testing.assert_close(table.cov(), torch.eye(4).double(), rtol=0, atol=2 * spread)


def test_a_clip_depends_on_its_key_and_prompt_alone(policy):
    prompts = policy.encode(TEXTS)
    both = rollout(policy, prompts, KEYS, steps=3, eta=1.0)
    swapped = rollout(policy, policy.encode(TEXTS[::-1]), KEYS[::-1], steps=3, eta=1.0)
    assert torch.equal(both.path[0], swapped.path[0].flip(0))
    torch.testing.assert_close(both.clean, swapped.clean.flip(0), atol=1e-5, rtol=1e-5)
    other = rollout(policy, prompts, [(0, 1), (0, 3)], steps=3, eta=1.0)
    assert (both.clean[1] - other.clean[1]).abs().max() > 0.1
    torch.testing.assert_close(both.clean[0], other.clean[0], atol=1e-5, rtol=1e-5)


def test_without_noise_nothing_has_a_density(policy):
    assert rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=0.0).log_probabilities == {}


@pytest.mark.parametrize("last", [1, 2, 3])
def test_the_differentiable_sample_is_the_sample_and_its_graph_is_that_of_the_last_steps(
    policy, last
):
    moved(policy)
    prompts = policy.encode(TEXTS)
    plain = rollout(policy, prompts, KEYS, steps=3, eta=0.0)
    latents = differentiable_sample(policy, prompts, KEYS, steps=3, last=last)
    assert torch.equal(latents.detach(), plain.clean)
    weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad((latents * weights).sum(), policy.parameters().values())
    x = plain.path[3 - last]
    for timestep in plain.timesteps[3 - last :]:
        x = transition(policy, x, timestep, prompts, 0.0).mean
    expected = torch.autograd.grad((x * weights).sum(), policy.parameters().values())
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_reward_gradients_equal_central_differences_of_the_whole_sampler():
    policy = Policy(tiny_pipeline(dtype=torch.float64), SIZE, guidance=3.0, rank=2)
    for parameter in policy.parameters().values():
        parameter.data = parameter.data.double()
    moved(policy)
    prompts = policy.encode(TEXTS)
    parameters = list(policy.parameters().values())

    def score():
        latents = differentiable_sample(policy, prompts, KEYS, steps=3, last=3)
        assert latents.dtype == torch.float64
        return (latents.sin() * latents.mean(dim=2, keepdim=True)).sum()

    grads = torch.autograd.grad(score(), parameters)
    generator = torch.Generator().manual_seed(4)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    along = sum((g * d).sum() for g, d in zip(grads, direction, strict=True)).item()
    scores = []
    for sign in (1, -1):
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.data.add_(sign * 1e-5 * part)
        with torch.no_grad():
            policy_scores = differentiable_values(policy, prompts)
        scores.append(policy_scores)
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.data.sub_(sign * 1e-5 * part)
    assert along != 0
    assert (scores[0] - scores[1]) / 2e-5 == pytest.approx(along, rel=1e-5)


def differentiable_values(policy, prompts):
    latents = rollout(policy, prompts, KEYS, steps=3, eta=0.0).clean
    return (latents.sin() * latents.mean(dim=2, keepdim=True)).sum().item()


@pytest.mark.parametrize("stop", [0, 2])
def test_refl_takes_the_clean_latents_of_one_step(policy, stop):
    moved(policy)
    prompts = policy.encode(TEXTS)
    plain = rollout(policy, prompts, KEYS, steps=3, eta=0.0)
    with torch.no_grad():  # the caller's mode does not matter: this is for training
        latents = predicted_sample(policy, prompts, KEYS, steps=3, stop=stop)
    step = transition(policy, plain.path[stop], plain.timesteps[stop], prompts, 0.0)
    assert torch.equal(latents.detach(), step.clean.detach())
    latents.square().sum().backward()
    assert all(p.grad is not None for p in policy.parameters().values())


def test_arguments_are_checked(policy):
    prompts = policy.encode(TEXTS)
    with pytest.raises(ValueError, match="2 prompts need as many keys, got 1"):
        rollout(policy, prompts, KEYS[:1], steps=3, eta=1.0)
    for last in (0, 4):
        with pytest.raises(ValueError, match=f"got {last}"):
            differentiable_sample(policy, prompts, KEYS, steps=3, last=last)
    with pytest.raises(ValueError, match="got 3"):
        predicted_sample(policy, prompts, KEYS, steps=3, stop=3)
    assert schedule(policy, 4) == (999, 749, 499, 249)
    with pytest.raises(ValueError, match="62 timesteps for 61 steps, the last of them -1"):
        schedule(policy, 61)
