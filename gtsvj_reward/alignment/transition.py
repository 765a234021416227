"""One step of stochastic DDIM: its mean, its deviation, and log-probabilities."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import CogVideoXDDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.losses.reduction import at_least_float32
from gtsvj_reward.sampling.clean import NoiseLevel, clean_latents

Latents = Float[Tensor, "clip time channel height width"]
Elements = Literal["mean", "sum"]
"""How the log-densities of a clip's elements are reduced."""


@dataclass(frozen=True)
class Transition:
    """p(x_{t-1} | x_t) = N(mean, std²), and the predicted clean latents."""

    mean: Latents
    """μ, float32."""
    std: float
    """Standard deviation, the same for every element; 0 where the step is deterministic."""
    clean: Latents
    """Predicted clean latents x̂₀, float32."""


def ddim_scheduler(scheduler: Any) -> CogVideoXDDIMScheduler:
    """A `CogVideoXDDIMScheduler` with the noise levels of a pipeline's scheduler.

    Its timesteps are spaced from the end, as CogVideoX expects, whatever the pipeline's are.
    """
    made: CogVideoXDDIMScheduler = CogVideoXDDIMScheduler.from_config(
        scheduler.config, timestep_spacing="trailing"
    )
    return made


def ddim_transition(
    scheduler: Any,
    output: Latents,
    timestep: int,
    noisy: Latents,
    *,
    eta: float,
) -> Transition:
    """The step of DDIM (Song et al. 2021, Eqs. 12 and 16) from x_t, for any η.

    With ᾱ at the step's two ends, β = 1 - ᾱ, and the clean latents x̂₀ that the output predicts,

        σ² = η² (β' / β) (1 - ᾱ / ᾱ')
        μ  = √ᾱ' x̂₀ + √(β' - σ²) (x - √ᾱ x̂₀) / √β

    where a prime marks the less noisy end. `CogVideoXDDIMScheduler.step` ignores its `eta`; at
    η = 0 the mean is what it returns, bitwise, but for the last step of some schedules. Like it,
    this takes the other end to be ⌊1000 / steps⌋ below `timestep`, which for numbers of steps that
    do not divide 1000 is not quite the next timestep of the schedule.

    The last step ends without noise, σ = 0 and μ = x̂₀, for any number of steps. The scheduler's own
    stops at the noise of timestep 0, √(1 - ᾱ₀) = 0.05, where 1000 / steps is rounded up (6, 7, 11,
    13, 15, 17, ... steps), or with `set_alpha_to_one=False`. Stochastic, that step would have a σ
    so small that it makes up most of a policy gradient.

    Args:
        scheduler: after `set_timesteps`.
        output: of the transformer, guided if guidance is used.
        timestep: of the step, one of `scheduler.timesteps`.
        noisy: x_t.
        eta: η ≥ 0; 1 is DDPM's posterior. Above 1 the variance may exceed what the step can hold.

    Raises:
        ValueError: for another scheduler, an η that is negative or too large for this step.
    """
    if not isinstance(scheduler, CogVideoXDDIMScheduler):
        raise ValueError(
            f"expected a CogVideoXDDIMScheduler, got {type(scheduler).__name__}: see "
            "`ddim_scheduler`"
        )
    if scheduler.num_inference_steps is None:
        raise ValueError("the scheduler has no schedule yet: call its `set_timesteps` first")
    here, there = noise_levels(scheduler, timestep)
    noisy, output = at_least_float32(noisy), at_least_float32(output)
    level = NoiseLevel(here**0.5, (1 - here) ** 0.5, prediction_type(scheduler))
    clean = clean_latents(level, output, noisy)
    variance = step_variance(here, there, eta)
    # (clip time channel height width); the order of operations is that of diffusers.
    a = ((1 - there - variance) / (1 - here)) ** 0.5
    b = there**0.5 - here**0.5 * a
    return Transition(mean=a * noisy + b * clean, std=math.sqrt(variance.item()), clean=clean)


def noise_levels(scheduler: CogVideoXDDIMScheduler, timestep: int) -> tuple[Tensor, Tensor]:
    """ᾱ at a timestep and at the next one; after the last step there is no noise."""
    steps = scheduler.num_inference_steps
    previous = timestep - scheduler.config.num_train_timesteps // steps
    last = timestep == int(scheduler.timesteps[-1])
    levels = scheduler.alphas_cumprod
    return levels[timestep], levels.new_ones(()) if last else levels[previous]


def prediction_type(scheduler: Any) -> str:
    """The prediction type of the model.

    Raises:
        ValueError: for anything but v or x₀. CogVideoX starts at pure noise, where a prediction of
            the noise does not determine x₀.
    """
    prediction = str(scheduler.config.prediction_type)
    if prediction not in ("v_prediction", "sample"):
        raise ValueError(f"expected prediction_type v_prediction or sample, got {prediction!r}")
    return prediction


def step_variance(here: Tensor, there: Tensor, eta: float) -> Tensor:
    """σ² of a step between noise levels ᾱ and ᾱ'.

    Raises:
        ValueError: an η below 0, or one whose σ² is more than β'.
    """
    if not 0 <= eta < math.inf:
        raise ValueError(f"`eta` must be finite and at least 0, got {eta}")
    variance = eta**2 * (1 - there) / (1 - here) * (1 - here / there)
    if variance > 1 - there:
        raise ValueError(
            f"eta = {eta} asks for a variance of {variance.item():.3g} in a step that ends with "
            f"{(1 - there).item():.3g} of noise: use a smaller one, 1 at most to be safe"
        )
    return variance


def log_probability(
    following: Latents, mean: Latents, std: float, *, elements: Elements = "mean"
) -> Float[Tensor, " clip"]:
    """Log-density of x_{t-1} per clip, in nats; differentiable in the mean.

    Args:
        following: x_{t-1}; no gradient flows into it.
        mean: μ.
        std: σ > 0.
        elements: `"mean"` divides by the number of elements of a clip, as ddpo-pytorch does, so
            that ratios and clip ranges do not depend on the clip's size; `"sum"` is the density.

    Raises:
        ValueError: for σ = 0: the step was deterministic and has no density.
    """
    if not std > 0:
        raise ValueError(
            f"a step with standard deviation {std} has no density: leave deterministic steps out"
        )
    distance = (at_least_float32(following.detach()) - at_least_float32(mean)) / std
    # (clip, element)
    density = (-0.5 * distance.square() - math.log(std) - 0.5 * math.log(2 * math.pi)).flatten(1)
    return density.mean(1) if elements == "mean" else density.sum(1)


def transition_kl(
    mean: Latents, reference: Latents, std: float, *, elements: Elements = "mean"
) -> Float[Tensor, " clip"]:
    """KL(N(μ, σ²) ‖ N(μ_ref, σ²)) per clip, in nats: (μ - μ_ref)² / 2σ².

    Args:
        mean: μ of the policy.
        reference: μ of the model that it is held to.
        std: σ > 0, common to both.
        elements: as for `log_probability`.

    Raises:
        ValueError: for σ = 0.
    """
    if not std > 0:
        raise ValueError(f"a step with standard deviation {std} has no divergence from another")
    gap = at_least_float32(mean) - at_least_float32(reference)
    divergence = (gap / std).square().flatten(1) / 2
    return divergence.mean(1) if elements == "mean" else divergence.sum(1)


def add_noise(
    scheduler: CogVideoXDDIMScheduler,
    clean: Latents,
    noise: Latents,
    timestep: int | Int[Tensor, " clip"],
) -> tuple[Latents, Latents]:
    """x_t of the forward process, and the target of a v-predicting model.

    x_t = √ᾱ x₀ + √(1 - ᾱ) ε and v = √ᾱ ε - √(1 - ᾱ) x₀, both float32.

    Args:
        scheduler: of the noise levels.
        clean: x₀.
        noise: ε.
        timestep: of all clips, or of each.
    """
    chosen = torch.as_tensor(timestep, device="cpu").expand(len(clean))
    clean, noise = at_least_float32(clean), at_least_float32(noise)
    # Not by the scheduler's own methods: they move its table to the clips' device, where every
    # step of a rollout would then wait to read its σ.
    level = scheduler.alphas_cumprod[chosen].to(clean).view(-1, 1, 1, 1, 1)
    alpha, sigma = level**0.5, (1 - level) ** 0.5
    return alpha * clean + sigma * noise, alpha * noise - sigma * clean


def standard_normal(
    shape: tuple[int, ...], generators: list[torch.Generator], device: torch.device
) -> Tensor:
    """Noise (clip, *shape), float32, each clip from a CPU generator: the same on any device."""
    noise: Tensor = randn_tensor((len(generators), *shape), generator=generators, device=device)
    return noise
