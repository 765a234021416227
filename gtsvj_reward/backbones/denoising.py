"""How far a frozen generator is from the truth when it denoises a clip, step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.backbones.image import ImageCondition
from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.losses.reduction import at_least_float32
from gtsvj_reward.random_keys import keyed_generator

PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")
"""What a generator predicts: the noise, alpha noise - sigma clean, or noise - clean."""


@dataclass(frozen=True)
class NoiseLevel:
    """A point of a generator's forward process, x = alpha clean + sigma noise; plain numbers."""

    timestep: float
    """The timestep that the model gets, in the family's own convention, 0 for clean latents."""
    alpha: float
    """Share of the clean latents."""
    sigma: float
    """Share of the noise, of variance 1."""
    prediction: str
    """What the model predicts there, one of `PREDICTIONS`."""

    def __post_init__(self) -> None:
        """Reject what the model might predict otherwise."""
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"expected a prediction of {', '.join(PREDICTIONS)}, got {self.prediction!r}"
            )

    def noisy(self, clean: Tensor, noise: Tensor) -> Tensor:
        """What the model is given."""
        return self.alpha * clean + self.sigma * noise

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        """What the model should say."""
        if self.prediction == "epsilon":
            return noise.expand_as(clean)
        if self.prediction == "v_prediction":
            return self.alpha * noise - self.sigma * clean
        return noise - clean


def flow_level(share: float) -> NoiseLevel:
    """The level of flow matching at sigma = share."""
    return NoiseLevel(1000 * share, 1 - share, share, "flow_prediction")


def flow_scheduler_level(scheduler: Any, share: float) -> NoiseLevel:
    """The level of a scheduler whose sigmas are those of a flow; their shift is of no account.

    Raises:
        ValueError: for a UniPC scheduler of another process.
    """
    config = scheduler.config
    if isinstance(scheduler, UniPCMultistepScheduler) and (
        not config.use_flow_sigmas or config.prediction_type != "flow_prediction"
    ):
        raise ValueError(
            "expected a UniPCMultistepScheduler of flow matching, got one with use_flow_sigmas="
            f"{config.use_flow_sigmas} and prediction_type={config.prediction_type!r}"
        )
    return flow_level(share)


def alphas_level(scheduler: Any, share: float) -> NoiseLevel:
    """The level nearest to a share of noise in the table of a variance-preserving scheduler."""
    products = scheduler.alphas_cumprod.double()
    alphas, sigmas = products.sqrt(), (1 - products).sqrt()
    timestep = int((sigmas / (alphas + sigmas) - share).abs().argmin())
    alpha, sigma = alphas[timestep].item(), sigmas[timestep].item()
    return NoiseLevel(float(timestep), alpha, sigma, scheduler.config.prediction_type)


SCHEDULERS: dict[type, Callable[[Any, float], NoiseLevel]] = {
    CogVideoXDDIMScheduler: alphas_level,
    CogVideoXDPMScheduler: alphas_level,
    FlowMatchEulerDiscreteScheduler: flow_scheduler_level,
    UniPCMultistepScheduler: flow_scheduler_level,
}
"""Class of a scheduler -> its level at a share of noise."""


def noise_levels(
    backbone: Backbone, shares: Sequence[float], scheduler: Any = None
) -> tuple[NoiseLevel, ...]:
    """Levels at which a generator is asked to denoise.

    Args:
        backbone: the generator.
        shares: of noise, sigma / (alpha + sigma), 0..1: with 0.5 there is as much noise as clip.
            The same share is the same task for every family; for flow matching it is sigma.
        scheduler: the pipeline's; needed by families that are not trained by flow matching, of
            which it takes the nearest timestep.

    Raises:
        ValueError: without shares, for one outside 0..1, and for a scheduler that is missing, not
            known or of another process than the family's.
    """
    wrong = [share for share in shares if not 0 < share < 1]
    if wrong or not shares:
        raise ValueError(
            f"expected at least one noise level between 0 and 1 (share of noise), got "
            f"{list(shares)}"
        )
    if scheduler is None:
        if not backbone.flow_matching:
            raise ValueError(
                f"the noise level of a {backbone.family}'s timestep depends on the scheduler: give "
                "`scheduler`, the pipeline's"
            )
        return tuple(flow_level(share) for share in shares)
    if type(scheduler) not in SCHEDULERS:
        raise ValueError(
            f"noise levels of {type(scheduler).__name__} are not known; known schedulers: "
            f"{', '.join(kind.__name__ for kind in SCHEDULERS)}"
        )
    levels = tuple(SCHEDULERS[type(scheduler)](scheduler, share) for share in shares)
    if backbone.flow_matching != (levels[0].prediction == "flow_prediction"):
        raise ValueError(
            f"a {backbone.family} is {'' if backbone.flow_matching else 'not '}trained by flow "
            f"matching, and {type(scheduler).__name__} has prediction_type="
            f"{levels[0].prediction!r}: give the scheduler of its pipeline"
        )
    return levels


def level_noise(
    level: NoiseLevel, shape: Sequence[int], seed: int
) -> Float[Tensor, "time channel height width"]:
    """Noise that depends on seed, shape and level alone, so that scores can be compared.

    Args:
        level: for its timestep.
        shape: of a clip: time, channels, height and width.
        seed: of the noise.
    """
    key = (seed, *shape, *float(level.timestep).as_integer_ratio())
    return torch.randn(tuple(shape), generator=keyed_generator(*key))


def denoising_errors(
    backbone: Backbone,
    latents: Float[Tensor, "batch time channel height width"],
    levels: Sequence[NoiseLevel],
    *,
    text: TextCondition | None = None,
    image: ImageCondition | None = None,
    seed: int = 0,
) -> Float[Tensor, "batch level step"]:
    """Mean squared error of what a generator predicts, of each step of each clip at each level.

    All clips get the same noise, which `level_noise` keys by seed, shape and level: a clip's error
    does not depend on its companions, and is a smooth function of its latents. One level is run
    after the other, and computed again in the backward pass, so that memory is that of one pass.

    Args:
        backbone: the generator, all of its blocks.
        latents: clean, scaled latents of one shape.
        levels: see `noise_levels`.
        text: prompt embeddings; None is the null condition (embeddings of zeros).
        image: reference images, of models that take them; None is the null condition.
        seed: of the noise.

    Returns:
        In float32, float64 for latents in float64; a step is that of `Backbone.steps`. Frames that
        the model is given with its image have the mean of the others.

    Raises:
        ValueError: for latents that the model does not take, and if blocks were left out.
    """
    backbone.check_geometry(latents)
    clean = at_least_float32(latents)

    def errors_at(level: NoiseLevel, clean: Tensor) -> Tensor:
        noise = level_noise(level, clean.shape[1:], seed).to(clean)
        predicted = backbone.predict(
            level.noisy(clean, noise), timestep=level.timestep, text=text, image=image
        ).to(clean)
        return (predicted - level.target(clean, noise)).square().mean(dim=(2, 3, 4))

    given = backbone.given_frames if image is not None or backbone.image_use == "always" else 0
    recorded = torch.is_grad_enabled() and clean.requires_grad
    frames = [
        checkpoint(errors_at, level, clean, use_reentrant=False, preserve_rng_state=False)
        if recorded
        else errors_at(level, clean)
        for level in levels
    ]
    return by_step(
        without_given(torch.stack(frames, dim=1), given), backbone.step_of_frame(clean.shape[1])
    )


def without_given(
    frames: Float[Tensor, "batch level time"], given: int
) -> Float[Tensor, "batch level time"]:
    """Errors with the mean of the later frames in place of those of the first `given` ones.

    Raises:
        ValueError: for a clip without later frames.
    """
    if not given:
        return frames
    later = frames[..., given:]
    if not later.shape[2]:
        raise ValueError(
            f"all {frames.shape[2]} latent frames of the clip are the image: none was generated"
        )
    return torch.cat([later.mean(dim=2, keepdim=True).expand(-1, -1, given), later], dim=2)


def by_step(
    frames: Float[Tensor, "batch level time"], step_of_frame: Sequence[int]
) -> Float[Tensor, "batch level step"]:
    """Means over the latent frames of each step."""
    steps = range(step_of_frame[-1] + 1)
    counts = frames.new_tensor([step_of_frame.count(step) for step in steps])
    index = torch.tensor(step_of_frame, device=frames.device)
    sums = frames.new_zeros(*frames.shape[:2], len(steps)).index_add(2, index, frames)
    return sums / counts
