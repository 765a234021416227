"""The clean latents that a pipeline's model predicts at each denoising step, without running it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.losses.reduction import at_least_float32
from gtsvj_reward.sampling.methods import wrapped_method

Latents = Float[Tensor, "clip a b height width"]
"""Latents in a pipeline's own layout: BTCHW for CogVideoX, BCTHW for Wan."""


@dataclass(frozen=True)
class Step:
    """One denoising step, in the pipeline's own layout, padding included."""

    index: int
    """Place in the schedule, from 0."""
    timestep: float
    """Noise level that the model was given."""
    noisy: Latents
    """Latents before the step."""
    following: Latents
    """Latents after the step, before any callback."""
    clean: Latents
    """Predicted clean latents x̂₀, float32; of the guided output if the pipeline is guided."""


class CleanLatents:
    """The steps that `predicted_clean_latents` has seen."""

    def __init__(self) -> None:
        self.steps_seen = 0
        self._latest: Step | None = None

    @property
    def latest(self) -> Step:
        """The latest step.

        Raises:
            RuntimeError: before the first one.
        """
        if self._latest is None:
            raise RuntimeError(
                "no denoising step yet: run the pipeline that was given, with the scheduler that "
                "it had, inside the block"
            )
        return self._latest

    def add(self, step: Step) -> None:
        """Add a step."""
        self._latest = step
        self.steps_seen += 1


class NoiseLevel(NamedTuple):
    """x = α x₀ + σ ε, and what the model predicts of it."""

    alpha: float | Tensor
    sigma: float | Tensor
    prediction: str


def alphas_level(scheduler: Any, _index: int, timestep: Any) -> NoiseLevel:
    """α = √ᾱ and σ = √(1 - ᾱ) of a variance-preserving scheduler."""
    product = float(scheduler.alphas_cumprod[int(timestep)])
    return NoiseLevel(product**0.5, (1 - product) ** 0.5, scheduler.config.prediction_type)


def flow_level(scheduler: Any, index: int, _timestep: Any) -> NoiseLevel:
    """α = 1 - σ of flow matching, where the model predicts ε - x₀.

    Inverted sigmas (Mochi) are the α, and the model predicts x₀ - ε.
    """
    sigma = float(scheduler.sigmas[index])
    if scheduler.config.get("invert_sigmas", False):
        return NoiseLevel(sigma, 1 - sigma, "inverted_flow")
    return NoiseLevel(1 - sigma, sigma, "flow_prediction")


def unipc_level(scheduler: Any, index: int, _timestep: Any) -> NoiseLevel:
    """α and σ of UniPC, whose sigmas are those of a flow, or the ratio σ/α."""
    sigma = float(scheduler.sigmas[index])
    if scheduler.config.get("use_flow_sigmas", False):
        return NoiseLevel(1 - sigma, sigma, scheduler.config.prediction_type)
    alpha = (1 + sigma**2) ** -0.5
    return NoiseLevel(alpha, sigma * alpha, scheduler.config.prediction_type)


LEVELS: dict[type, Callable[[Any, int, Any], NoiseLevel]] = {
    CogVideoXDDIMScheduler: alphas_level,
    CogVideoXDPMScheduler: alphas_level,
    FlowMatchEulerDiscreteScheduler: flow_level,
    UniPCMultistepScheduler: unipc_level,
}
"""Class of a scheduler -> its noise level at (scheduler, index, timestep). Exactly these classes: a
subclass may mean something else by its numbers."""


def clean_latents(level: NoiseLevel, output: Latents, noisy: Latents) -> Latents:
    """x̂₀ of a model's output on noisy latents, at least float32.

        epsilon           (x - σ ε̂) / α
        sample            the output itself
        v_prediction      α x - σ v̂
        flow_prediction   x - σ û
        inverted_flow     x + σ û

    Raises:
        ValueError: for another prediction type, or epsilon at α = 0, which does not determine x₀.
    """
    output, noisy = at_least_float32(output), at_least_float32(noisy)
    alpha, sigma, prediction = level
    if prediction == "sample":
        return output
    if prediction == "v_prediction":
        return alpha * noisy - sigma * output
    if prediction == "flow_prediction":
        return noisy - sigma * output
    if prediction == "inverted_flow":
        return noisy + sigma * output
    if prediction != "epsilon":
        raise ValueError(
            "expected prediction_type epsilon, sample, v_prediction or flow_prediction, got "
            f"{prediction!r}"
        )
    if alpha == 0:
        raise ValueError(
            "the schedule begins at pure noise (alphas_cumprod is 0 there), where a model that "
            "predicts epsilon does not determine the clean latents: use v_prediction"
        )
    return (noisy - sigma * output) / alpha


def check_scheduler(scheduler: Any) -> None:
    """Reject a scheduler for whose steps the formulas of `clean_latents` may not hold."""
    if type(scheduler) not in LEVELS:
        raise ValueError(
            f"clean latents cannot be predicted from the steps of {type(scheduler).__name__}; "
            f"known schedulers: {', '.join(kind.__name__ for kind in LEVELS)}"
        )
    if scheduler.config.get("thresholding", False):
        raise ValueError(
            f"{type(scheduler).__name__} with thresholding=True is not supported: its clean "
            "latents are not those of the formulas"
        )


def schedule_index(scheduler: Any, timestep: Any) -> int:
    """Place in the schedule of the step that was just taken.

    Two steps of a schedule with sigmas may share a rounded timestep, so those schedulers count
    themselves.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler):
        return int(scheduler.step_index) - 1
    return int((scheduler.timesteps == timestep).nonzero()[0].item())


@contextmanager
def predicted_clean_latents(pipe: Any) -> Iterator[CleanLatents]:
    """See the clean latents x̂₀ that a pipeline's model predicts at each of its steps.

    Each step is what `pipe.scheduler.step` was called with; the transformer is not run again, and
    sampling is not changed. The method is put back when the block is left, by an exception too.

        with predicted_clean_latents(pipe) as seen:
            pipe(prompt, callback_on_step_end=lambda p, i, t, kwargs: (use(seen.latest), kwargs)[1])

    Args:
        pipe: a pipeline with one of the schedulers in `LEVELS`.

    Raises:
        ValueError: for another scheduler, or options of one that change what its numbers mean.
    """
    scheduler = pipe.scheduler
    check_scheduler(scheduler)
    level_at = LEVELS[type(scheduler)]
    signature = inspect.signature(scheduler.step)
    seen = CleanLatents()

    def watched(step: Callable[..., Any], args: tuple[Any, ...], keywords: Any) -> Any:
        given = signature.bind(*args, **keywords).arguments
        if given.get("per_token_timesteps") is not None:
            raise ValueError("steps with `per_token_timesteps` have no single noise level")
        result = step(*args, **keywords)
        timestep, noisy = given["timestep"], given["sample"]
        index = schedule_index(scheduler, timestep)
        with torch.no_grad():
            clean = clean_latents(
                level_at(scheduler, index, timestep), given["model_output"], noisy
            )
        seen.add(Step(index, float(timestep), noisy, result[0], clean))
        return result

    with wrapped_method(scheduler, "step", watched):
        yield seen
