"""Clips that a pipeline makes in few steps: from noise, or from a clip noised part of the way."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.sampling.clean import check_scheduler
from gtsvj_reward.sampling.pipelines import (
    ClipSize,
    as_clips,
    check_reproducible,
    pipeline_kind,
)

Clips = Float[Tensor, "clip time channel height width"]


def truncated(scheduler: Any, strength: float, steps: int) -> Any:
    """A CogVideoX scheduler that knows only the timesteps up to the strength's.

    Its schedules begin at that timestep, which is rounded down so that `steps` equal steps end at
    clean latents.
    """
    count = thousandths(scheduler, strength) // steps * steps
    part = type(scheduler).from_config(
        scheduler.config, num_train_timesteps=count, timestep_spacing="trailing"
    )
    part.alphas_cumprod = scheduler.alphas_cumprod[:count]
    part.final_alpha_cumprod = scheduler.final_alpha_cumprod
    return part


def scaled(scheduler: Any, strength: float, _steps: int) -> Any:
    """A flow-matching scheduler whose noise levels σ are those of the whole times the strength.

    Raises:
        ValueError: for a UniPC scheduler whose sigmas are not those of a flow.
    """
    if isinstance(scheduler, UniPCMultistepScheduler) and not scheduler.config.use_flow_sigmas:
        raise ValueError(
            "UniPCMultistepScheduler without use_flow_sigmas=True has no noise levels between 0 "
            "and 1 to begin at: use it with use_flow_sigmas=True, or a "
            "FlowMatchEulerDiscreteScheduler"
        )
    part = copy.deepcopy(scheduler)
    whole = part.set_timesteps

    @wraps(whole)
    def set_timesteps(*args: Any, **keywords: Any) -> None:
        whole(*args, **keywords)
        part.sigmas = part.sigmas * strength
        timesteps = part.sigmas[:-1] * part.config.num_train_timesteps
        if not part.timesteps.is_floating_point():
            timesteps = timesteps.round()
        part.timesteps = timesteps.to(part.timesteps)

    part.set_timesteps = set_timesteps
    return part


PARTIAL: dict[type, Callable[[Any, float, int], Any]] = {
    CogVideoXDDIMScheduler: truncated,
    CogVideoXDPMScheduler: truncated,
    FlowMatchEulerDiscreteScheduler: scaled,
    UniPCMultistepScheduler: scaled,
}
"""Class of a scheduler -> one of the same class that begins at a strength; those of `LEVELS`."""


def thousandths(scheduler: Any, strength: float) -> int:
    """Timesteps of the forward process up to a strength, 400 of 1000 for 0.4."""
    return round(strength * int(scheduler.config.num_train_timesteps))


def check_strength(scheduler: Any, strength: float, steps: int) -> None:
    """Refuse a strength outside 0..1, and one that holds fewer timesteps than there are steps."""
    if steps < 1 or not 0 <= strength <= 1:
        raise ValueError(
            f"expected a strength in 0..1 and at least 1 step, got {strength} and {steps}"
        )
    if strength > 0 and thousandths(scheduler, strength) < steps:
        raise ValueError(
            f"strength {strength} is {thousandths(scheduler, strength)} timesteps, too few for "
            f"{steps} steps: take a greater one"
        )


@contextmanager
def beginning_at(pipe: Any, strength: float, steps: int) -> Iterator[Any]:
    """Let the pipeline's schedule begin at a strength, until the block is left.

    Yields:
        The scheduler that stands in for the pipeline's own, with its schedule of `steps` steps.

    Raises:
        ValueError: for a scheduler that is not known, or would draw noise without a seed.
    """
    whole = pipe.scheduler
    check_scheduler(whole)
    check_reproducible(pipe)
    check_strength(whole, strength, steps)
    part = PARTIAL[type(whole)](whole, strength, steps)
    part.set_timesteps(steps)
    pipe.scheduler = part
    try:
        yield part
    finally:
        pipe.scheduler = whole


def renoised(
    pipe: Any,
    clips: Clips,
    prompts: Sequence[str],
    *,
    strength: float,
    steps: int,
    generators: Sequence[torch.Generator],
    size: ClipSize,
    guidance_scale: float | None = None,
) -> Clips:
    """Noise clips part of the way, and denoise them by the pipeline in few steps.

    Args:
        pipe: a pipeline of `PIPELINES`.
        clips: scaled latents of its space, without padding.
        prompts: one per clip.
        strength: noise level, 0..1: the timestep as a fraction of the whole, and for flow matching
            the share σ of noise. 0 gives the clips back.
        steps: denoising steps, of equal length in timesteps (flow matching: with the scheduler's
            own shift).
        generators: one per clip, on the CPU; for the noise, and for schedulers that draw some.
        size: of the clips.
        guidance_scale: None: the pipeline's default.

    Returns:
        As `clips`, float32.

    Raises:
        ValueError: for a pipeline or scheduler that is not known, or a strength out of range.
    """
    kind = pipeline_kind(pipe)
    if strength == 0:
        return clips
    with beginning_at(pipe, strength, steps) as scheduler:
        own = padded(kind.space(pipe), clips).float().cpu()
        noise = randn_tensor(tuple(own.shape), generator=list(generators))
        first = scheduler.timesteps[:1].expand(len(own))
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            noisy = scheduler.scale_noise(own, first, noise)
        else:
            noisy = scheduler.add_noise(own, noise, first)
        return sampled(
            pipe,
            prompts,
            steps=steps,
            generators=generators,
            size=size,
            guidance_scale=guidance_scale,
            noisy=kind.space(pipe).from_btchw(noisy),
        )


def sampled(
    pipe: Any,
    prompts: Sequence[str],
    *,
    steps: int,
    generators: Sequence[torch.Generator],
    size: ClipSize,
    guidance_scale: float | None = None,
    noisy: Float[Tensor, "clip a b height width"] | None = None,
) -> Clips:
    """Clips that the pipeline makes of prompts, without padding, float32.

    Args:
        pipe: a pipeline of `PIPELINES`.
        prompts: one per clip.
        steps: denoising steps.
        generators: one per clip, on the CPU.
        size: of the clips.
        guidance_scale: None: the pipeline's default.
        noisy: what to begin with, in the pipeline's layout and with padding; None: noise.

    Raises:
        ValueError: for a pipeline that is not known, or a scheduler whose noise has no seed.
    """
    kind = pipeline_kind(pipe)
    check_reproducible(pipe)
    if noisy is not None and not kind.keeps_float32:
        noisy = noisy.to(pipe.transformer.dtype)
    guidance = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    latents: Tensor = pipe(
        prompt=list(prompts),
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=steps,
        generator=list(generators),
        latents=noisy,
        output_type="latent",
        **guidance,
        **kind.arguments(pipe),
    ).frames
    return as_clips(kind.space(pipe), latents, size.num_frames).float()


def padded(space: LatentSpace, clips: Clips) -> Float[Tensor, "clip padded channel height width"]:
    """Clips with their first latent repeated in front, where the generator pads (CogVideoX 1.5)."""
    missing = -clips.shape[1] % (space.patch_size_t or 1)
    return torch.cat([clips[:, :1].expand(-1, missing, -1, -1, -1), clips], dim=1)
