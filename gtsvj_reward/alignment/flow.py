"""One step of stochastic flow matching: its mean, its deviation and its noise levels."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.alignment.transition import Latents, Transition
from gtsvj_reward.losses.reduction import at_least_float32

SDE = Literal["ddim", "flow-grpo", "dance-grpo"]
"""How noise enters a step; see `flow_transition`."""
SDES = get_args(SDE)
PUBLISHED_ETA: Mapping[SDE, float] = {"ddim": 1.0, "flow-grpo": 0.7, "dance-grpo": 0.3}
"""η for training: the forward process's posterior, and those of the two papers."""
PURE_NOISE = 1 - 1e-5
"""Levels above this count as pure noise: UniPC starts at 1 - 1e-6."""


def flow_scheduler(scheduler: Any, *, shift: float | None = None) -> Any:
    """A scheduler of single steps with the noise levels of a pipeline's flow-matching scheduler.

    Euler stays Euler. UniPC, which joins the outputs of several steps and corrects earlier ones,
    becomes UniPC of order 1 without its corrector: the same Euler step, computed from logarithms.

    Args:
        scheduler: of the pipeline; it is not changed.
        shift: s > 0 of σ = s u / (1 + (s - 1) u), where u falls in equal steps; None: as it is.

    Raises:
        ValueError: for an unknown scheduler or one that is not of flow matching; for a shift if
            the scheduler computes it from the clip's size.
    """
    changes: dict[str, Any] = {}
    if type(scheduler) is UniPCMultistepScheduler:
        every = list(range(int(scheduler.config.num_train_timesteps)))
        changes = {"solver_order": 1, "disable_corrector": every, "solver_p": None}
    if shift is not None:
        if not 0 < shift < math.inf:
            raise ValueError(f"`shift` must be positive and finite, got {shift}")
        if scheduler.config.get("use_dynamic_shifting", False):
            raise ValueError(
                f"the {type(scheduler).__name__} computes its shift from the clip's size "
                "(use_dynamic_shifting=True): leave `shift` out"
            )
        unipc = type(scheduler) is UniPCMultistepScheduler
        changes["flow_shift" if unipc else "shift"] = shift
    made = type(scheduler).from_config(scheduler.config, **changes)
    check_flow_scheduler(made)
    return made


def check_flow_scheduler(scheduler: Any) -> None:
    """Reject a scheduler whose step is not one Euler step of a flow."""
    name, config = type(scheduler).__name__, scheduler.config
    if type(scheduler) is FlowMatchEulerDiscreteScheduler:
        wanted: dict[str, Any] = {"stochastic_sampling": False}
    elif type(scheduler) is UniPCMultistepScheduler:
        wanted = {
            "use_flow_sigmas": True,
            "prediction_type": "flow_prediction",
            "predict_x0": True,
            "thresholding": False,
            "final_sigmas_type": "zero",
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "solver_order": 1,
            "solver_p": None,
        }
    else:
        raise ValueError(
            "expected a FlowMatchEulerDiscreteScheduler or a UniPCMultistepScheduler of flow "
            f"matching, got {name}: make one with `from_config(pipe.scheduler.config)`"
        )
    for option, value in wanted.items():
        if config.get(option, value) != value:
            raise ValueError(
                f"expected a {name} with {option}={value!r}, got {config[option]!r}: a policy "
                "takes single steps of a flow whose noise levels end at 0; see `flow_scheduler`"
            )
    if type(scheduler) is UniPCMultistepScheduler:
        steps = (scheduler.num_inference_steps or int(config.num_train_timesteps)) - 1
        if not set(range(steps)) <= set(scheduler.disable_corrector):
            raise ValueError(
                f"the {name} corrects each step by the next one (`disable_corrector`), so a step "
                "depends on more than one output: see `flow_scheduler`"
            )


def inverted(scheduler: Any) -> bool:
    """Whether levels are shares of clean latents instead of noise, and outputs are negated."""
    return bool(scheduler.config.get("invert_sigmas", False))


def flow_levels(scheduler: Any) -> tuple[float, ...]:
    """Shares σ of noise along the schedule, 1 or less at first, 0 at last; one more than steps."""
    levels = scheduler.sigmas.tolist()
    return tuple(1 - level for level in levels) if inverted(scheduler) else tuple(levels)


def flow_transition(
    scheduler: Any,
    output: Latents,
    index: int,
    noisy: Latents,
    *,
    eta: float,
    sde: SDE = "ddim",
) -> Transition:
    """A step of the SDE that has the marginals of the flow, discretised, for any η.

    With x = (1 - σ) x₀ + σ ε, the output v = ε̂ - x̂₀, and h = σ - σ' the length of the step,

        x̂₀ = x - σ v,    ε̂ = x + (1 - σ) v
        dx = (v + g² ε̂ / 2σ) dσ + g dw
        μ  = (x - h v) - (g² h / 2σ) ε̂,    std = g √h

    by Euler and Maruyama. The score of a flow is -ε̂ / σ, so that any g leaves the marginals as they
    are but for the discretisation:

        flow-grpo    g = η √(σ / (1 - σ))    (Liu et al. 2025, Flow-GRPO; η = 0.7 there)
        dance-grpo   g = η                   (Xue et al. 2025, DanceGRPO; η = 0.3 there)

    A finite step of either leaves more noise in x' than belongs to σ'. DDIM's form (Song et al.
    2021), with the same numbers as for CogVideoX, leaves exactly as much, whatever its length:

        ddim         μ = (1 - σ') x̂₀ + √(σ'² - std²) ε̂
                     std = η σ' √(1 - r² / R²),    R = σ / (1 - σ),  r = σ' / (1 - σ'),  η <= 1

    Its η = 1 is the posterior of the forward process. Short steps of it are those of flow-grpo with
    √2 times its η: 0.7 there is 0.5 here.

    The last step ends without noise, μ = x̂₀ and std = 0, in all of them: the judge reads clean
    latents. In the first step, where σ = 1 has no finite g, flow-grpo takes the next level in the
    denominator, g = η √(1 / (1 - σ')), as the code of its authors does. At η = 0 the mean is what
    the scheduler's own `step` returns, bitwise.

    Args:
        scheduler: Euler, or UniPC of order 1 without corrector, after `set_timesteps`.
        output: of the transformer, guided if guidance is used, with the sign that it has.
        index: of the step, from 0.
        noisy: x.
        eta: η >= 0.
        sde: how noise enters.

    Raises:
        ValueError: for another scheduler, a step that the schedule does not have, or an η out of
            range.
    """
    check_flow_scheduler(scheduler)
    check_eta(eta, sde)
    levels = flow_levels(scheduler)
    if not 0 <= index < len(levels) - 1:
        raise ValueError(f"`index` must be 0..{len(levels) - 2}, a step's, got {index}")
    noisy, output = at_least_float32(noisy), at_least_float32(output)
    # The scheduler's own numbers, so that results equal its own bitwise.
    here = scheduler.sigmas[index]
    clean = noisy + (1 - here) * output if inverted(scheduler) else noisy - here * output
    mean = ode_step(scheduler, output, index, noisy)
    if eta == 0 or index == len(levels) - 2:
        return Transition(mean=mean, std=0.0, clean=clean)
    level, velocity = levels[index], -output if inverted(scheduler) else output
    shrinking, std = noise_terms(levels, index, eta, sde)
    noise = noisy + (1 - level) * velocity
    return Transition(mean=mean - shrinking * noise, std=std, clean=clean)


def noise_terms(levels: tuple[float, ...], index: int, eta: float, sde: SDE) -> tuple[float, float]:
    """The share of ε̂ that a stochastic step removes, and the deviation of the noise it adds."""
    level, following = levels[index], levels[index + 1]
    if sde == "ddim":
        ratio = following * (1 - level) / (level * (1 - following))
        std = eta * following * math.sqrt(1 - ratio**2)
        return following - math.sqrt(following**2 - std**2), std
    length = level - following
    diffusion = eta
    if sde == "flow-grpo":
        finite = following if level > PURE_NOISE else level
        diffusion = eta * math.sqrt(level / (1 - finite))
    return diffusion**2 * length / (2 * level), diffusion * math.sqrt(length)


def check_eta(eta: float, sde: SDE) -> None:
    """Reject an invalid η or SDE.

    Raises:
        ValueError: for a negative or infinite one, or one above 1 with `ddim`.
    """
    if sde not in SDES:
        raise ValueError(f"`sde` must be one of {', '.join(SDES)}, got {sde!r}")
    if not 0 <= eta < math.inf or (sde == "ddim" and eta > 1):
        bound = "at most 1" if sde == "ddim" else "finite"
        raise ValueError(f"`eta` must be at least 0 and {bound} with {sde!r}, got {eta}")


def ode_step(scheduler: Any, output: Latents, index: int, noisy: Latents) -> Latents:
    """The next latents of the deterministic flow, in the scheduler's order of operations."""
    here, there = scheduler.sigmas[index], scheduler.sigmas[index + 1]
    if type(scheduler) is FlowMatchEulerDiscreteScheduler:
        euler: Tensor = noisy + (there - here) * output
        return euler
    # UniP of order 1 in the logarithm of the signal-to-noise ratio, λ = log α - log σ.
    shorter, longer = (torch.log(1 - level) - torch.log(level) for level in (here, there))
    left = torch.expm1(-(longer - shorter))
    unipc: Tensor = there / here * noisy - (1 - there) * left * (noisy - here * output)
    return unipc


def flow_noise(
    scheduler: Any,
    clean: Latents,
    noise: Latents,
    timestep: float | Float[Tensor, " clip"] | Int[Tensor, " clip"],
) -> tuple[Latents, Latents]:
    """x_t of the forward process, and the target of the model.

    σ = t / 1000 (1 - t / 1000 where the scheduler inverts its levels), x = (1 - σ) x₀ + σ ε, and
    the velocity ε - x₀ (inverted: x₀ - ε); at least float32.

    Args:
        scheduler: of the noise levels.
        clean: x₀.
        noise: ε.
        timestep: of all clips, or of each.
    """
    clean, noise = at_least_float32(clean), at_least_float32(noise)
    share = torch.as_tensor(timestep, device="cpu").expand(len(clean)).double()
    share = share / int(scheduler.config.num_train_timesteps)
    share = (1 - share if inverted(scheduler) else share).to(clean).view(-1, 1, 1, 1, 1)
    velocity = noise - clean
    target = -velocity if inverted(scheduler) else velocity
    return (1 - share) * clean + share * noise, target
