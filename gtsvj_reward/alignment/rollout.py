"""Sampling from a policy: whole trajectories with their log-probabilities, or clean clips only."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.policy import Policy, Prompts
from gtsvj_reward.alignment.transition import (
    Elements,
    Latents,
    Transition,
    log_probability,
    standard_normal,
    transition_kl,
)
from gtsvj_reward.random_keys import keyed_generator

Key = tuple[int, ...]
"""Seeds of a clip: they decide all of its random numbers."""
TRAINING, EVALUATION = 0, 1
"""Second number of a clip's key, after the seed: iterations and checkups share no noise."""


@dataclass(frozen=True)
class Rollout:
    """One batch of clips of a policy, with their trajectories."""

    prompts: Prompts
    keys: tuple[Key, ...]
    path: tuple[Latents, ...]
    """x_T, ..., x_0: one more than there are steps; with padding."""
    timesteps: tuple[float, ...]
    """Of the steps, noisiest first; whole numbers for some schedulers."""
    log_probabilities: dict[int, Float[Tensor, " clip"]]
    """Index of a step -> log-density of the step it took. Deterministic steps, the last one among
    them, have none and are left out."""
    eta: float
    """η of the sampling."""
    elements: Elements = "mean"
    """Of the log-densities."""
    predictions: tuple[Latents, ...] = ()
    """x̂₀ predicted at each step, guided, with padding; empty unless requested."""

    @property
    def clean(self) -> Latents:
        """x_0, with padding."""
        return self.path[-1]


def schedule(policy: Policy, steps: int) -> tuple[float, ...]:
    """Timesteps of a number of steps, noisiest first; sets the policy's scheduler.

    Raises:
        ValueError: for a number of steps for which diffusers makes another number of timesteps, by
            a rounding error (for CogVideoX 61, 103, 121 and 59 more below 1000), or for which
            UniPC, which rounds its timesteps, repeats some of them.
    """
    policy.family.set_timesteps(steps)
    timesteps = tuple(policy.scheduler.timesteps.tolist())
    if len(timesteps) != steps:
        raise ValueError(
            f"diffusers makes {len(timesteps)} timesteps for {steps} steps, the last of them "
            f"{timesteps[-1]}: take a few steps more or less; numbers that divide 1000 always work"
        )
    if len(set(timesteps)) < steps:
        raise ValueError(
            f"{steps} steps have only {len(set(timesteps))} different timesteps in a "
            f"{type(policy.scheduler).__name__}: take fewer"
        )
    return timesteps


@torch.no_grad()
def rollout(
    policy: Policy,
    prompts: Prompts,
    keys: Sequence[Key],
    *,
    steps: int,
    eta: float,
    elements: Elements = "mean",
    stochastic: Collection[int] | None = None,
    predictions: bool = False,
) -> Rollout:
    """Sample one clip per prompt by stochastic steps, and keep every step.

    A clip's noise depends on its key alone, not on the batch, the process or the device. With η = 0
    the clips are those of the pipeline with `policy.scheduler`.

    Args:
        policy: in its current state.
        prompts: one per clip.
        keys: one per clip.
        steps: denoising steps.
        eta: η of `ddim_transition`, or of `flow_transition` with the policy's `sde`.
        elements: of `log_probability`.
        stochastic: indices of the steps that take noise; the others are deterministic. None: all.
        predictions: keep what the policy predicts at each step.

    Raises:
        ValueError: for another number of keys than prompts.
    """
    generators = generators_of(prompts, keys)
    timesteps = schedule(policy, steps)
    path = [standard_normal(policy.latent_shape, generators, policy.device)]
    densities: dict[int, Tensor] = {}
    predicted: list[Tensor] = []
    for index, timestep in enumerate(timesteps):
        noisy = stochastic is None or index in stochastic
        step = transition(policy, path[-1], timestep, prompts, eta if noisy else 0.0)
        if predictions:
            predicted.append(step.clean)
        following = step.mean
        if step.std > 0:
            noise = standard_normal(policy.latent_shape, generators, policy.device)
            following = step.mean + step.std * noise
            densities[index] = log_probability(following, step.mean, step.std, elements=elements)
        path.append(following)
    made = tuple(keys), tuple(path), timesteps, densities, eta, elements, tuple(predicted)
    return Rollout(prompts, *made)


class StepTaken(NamedTuple):
    """A step of a rollout, under the current policy."""

    log_probability: Float[Tensor, " clip"]
    """Of the step, differentiable."""
    kl: Float[Tensor, " clip"] | None
    """Divergence of the policy's transition from the reference's, in nats, differentiable; None if
    it was not requested."""


def step_taken(policy: Policy, made: Rollout, index: int, *, reference: bool = True) -> StepTaken:
    """Log-probability of a step of a rollout under the current policy, and its KL divergence.

    Sets the policy's scheduler to the rollout's number of steps, whatever was sampled since.

    Args:
        policy: in its current state.
        made: the rollout.
        index: of the step, one of `made.log_probabilities`.
        reference: also run the reference, one more pass without gradients.
    """
    schedule(policy, len(made.timesteps))
    here, timestep = made.path[index], made.timesteps[index]
    step = transition(policy, here, timestep, made.prompts, made.eta)
    now = log_probability(made.path[index + 1], step.mean, step.std, elements=made.elements)
    if not reference:
        return StepTaken(now, None)
    with policy.reference():
        other = transition(policy, here, timestep, made.prompts, made.eta)
    kl = transition_kl(step.mean, other.mean, step.std, elements=made.elements)
    return StepTaken(now, kl)


def transition(
    policy: Policy, noisy: Latents, timestep: float, prompts: Prompts, eta: float
) -> Transition:
    """The policy's step from x_t, guided; differentiable if the caller records."""
    output = policy.predict(noisy, timestep, prompts)
    return policy.family.transition(output, timestep, noisy, eta=eta)


def generators_of(prompts: Prompts, keys: Sequence[Key]) -> list[torch.Generator]:
    """One generator per clip.

    Raises:
        ValueError: if there are not as many keys as prompts.
    """
    if len(keys) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many keys, got {len(keys)}")
    return [keyed_generator(*key) for key in keys]


def differentiable_sample(
    policy: Policy, prompts: Prompts, keys: Sequence[Key], *, steps: int, last: int
) -> Latents:
    """Clean latents by deterministic steps, with a graph through the last `last` steps.

    DRaFT-K and AlignProp differentiate this: the latents before the first of those steps are
    constants. With `last` equal to `steps` the graph covers the whole sampling.

    Raises:
        ValueError: for a `last` outside 1..steps.
    """
    if not 1 <= last <= steps:
        raise ValueError(f"`last` must be 1..{steps}, the number of steps, got {last}")
    latents, timesteps = start(policy, prompts, keys, steps)
    for index, timestep in enumerate(timesteps):
        with torch.set_grad_enabled(index >= steps - last):
            latents = transition(policy, latents, timestep, prompts, eta=0.0).mean
    return latents


def predicted_sample(
    policy: Policy, prompts: Prompts, keys: Sequence[Key], *, steps: int, stop: int
) -> Latents:
    """Clean latents that the policy predicts at one step, with a graph through that step alone.

    ReFL differentiates this: sampling stops at step `stop`, counted from 0, and returns x̂₀.

    Raises:
        ValueError: for a step that the schedule does not have.
    """
    if not 0 <= stop < steps:
        raise ValueError(f"`stop` must be 0..{steps - 1}, got {stop}")
    latents, timesteps = start(policy, prompts, keys, steps)
    with torch.no_grad():
        for timestep in timesteps[:stop]:
            latents = transition(policy, latents, timestep, prompts, eta=0.0).mean
    with torch.enable_grad():
        return transition(policy, latents, timesteps[stop], prompts, eta=0.0).clean


def start(
    policy: Policy, prompts: Prompts, keys: Sequence[Key], steps: int
) -> tuple[Latents, tuple[float, ...]]:
    """x_T of each clip, and the schedule."""
    timesteps = schedule(policy, steps)
    noise = standard_normal(policy.latent_shape, generators_of(prompts, keys), policy.device)
    return noise, timesteps


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of `count` items, at most `size` in each."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
