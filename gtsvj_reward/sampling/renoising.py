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
from gtsvj_reward.sampling.clean import LEVELS, check_scheduler
from gtsvj_reward.sampling.pipelines import (
    ClipSize,
    as_clips,
    check_reproducible,
    check_steps,
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


def scaled(scheduler: Any, strength: float, steps: int) -> Any:
    """A flow-matching scheduler whose noise levels σ are those of the whole times the strength.

    Inverted sigmas (Mochi) are 1 - σ. A schedule of one step begins at σ = 1 of the whole, also
    where `shift_terminal` sets the σ of the last step.

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
    if steps == 1 and part.config.get("shift_terminal"):
        part.register_to_config(shift_terminal=None)  # with one step it divides 0 by 0
    whole = part.set_timesteps

    @wraps(whole)
    def set_timesteps(*args: Any, **keywords: Any) -> None:
        whole(*args, **keywords)
        if part.config.get("invert_sigmas", False):
            part.sigmas = 1 - (1 - part.sigmas) * strength
        else:
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
    """Reject a strength outside 0..1, and one with fewer timesteps than steps."""
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
def beginning_at(pipe: Any, strength: float, steps: int, *, positions: int) -> Iterator[Any]:
    """Start the pipeline's schedule at a strength within the block.

    Args:
        pipe: a pipeline of `PIPELINES`.
        strength: noise level, 0..1.
        steps: denoising steps.
        positions: latents of a clip over time, height and width.

    Yields:
        The scheduler that replaces the pipeline's own, with its schedule of `steps` steps.

    Raises:
        ValueError: for a scheduler that is not known, or would draw noise without a seed.
    """
    whole = pipe.scheduler
    check_scheduler(whole)
    check_reproducible(pipe)
    check_strength(whole, strength, steps)
    part = PARTIAL[type(whole)](whole, strength, steps)
    pipeline_kind(pipe).timesteps(part, steps, positions)
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
    fps: float | None = None,
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
        fps: frames per second, for a model that is told; None: the pipeline's default.
        guidance_scale: None: the pipeline's default.

    Returns:
        As `clips`, float32.

    Raises:
        ValueError: for a pipeline or scheduler that is not known, a strength out of range, or too
            few steps.
    """
    kind = pipeline_kind(pipe)
    if strength == 0:
        return clips
    own = padded(kind.space(pipe), clips).float().cpu()
    positions = own[0, :, 0].numel()
    with beginning_at(pipe, strength, steps, positions=positions) as scheduler:
        noise = randn_tensor(tuple(own.shape), generator=list(generators))
        level = LEVELS[type(scheduler)](scheduler, 0, scheduler.timesteps[0])
        noisy = level.alpha * own + level.sigma * noise
        return sampled(
            pipe,
            prompts,
            steps=steps,
            generators=generators,
            size=size,
            fps=fps,
            guidance_scale=guidance_scale,
            noisy=noisy,
        )


def sampled(
    pipe: Any,
    prompts: Sequence[str],
    *,
    steps: int,
    generators: Sequence[torch.Generator],
    size: ClipSize,
    fps: float | None = None,
    guidance_scale: float | None = None,
    noisy: Float[Tensor, "clip padded channel height width"] | None = None,
) -> Clips:
    """Clips that the pipeline makes of prompts, without padding, float32.

    Args:
        pipe: a pipeline of `PIPELINES`.
        prompts: one per clip.
        steps: denoising steps.
        generators: one per clip, on the CPU.
        size: of the clips.
        fps: frames per second, for a model that is told; None: the pipeline's default.
        guidance_scale: None: the pipeline's default.
        noisy: what to begin with, with padding; None: noise.

    Raises:
        ValueError: for a pipeline that is not known, too few steps for it, or a scheduler whose
            noise has no seed.
    """
    kind = pipeline_kind(pipe)
    check_reproducible(pipe)
    check_steps(pipe, steps)
    space = kind.space(pipe)
    guidance = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    frame_rate = {"frame_rate": fps} if kind.told_fps and fps is not None else {}
    latents: Tensor = pipe(
        prompt=list(prompts),
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=steps,
        generator=list(generators),
        latents=None if noisy is None else own_latents(pipe, noisy),
        output_type="latent",
        **guidance,
        **frame_rate,
        **kind.arguments(pipe),
    ).frames
    if kind.tokens:
        side = space.spatial_compression
        shape = (space.latent_frames(size.num_frames), size.height // side, size.width // side)
        latents = latents.unflatten(1, shape).movedim(-1, 1)
    return as_clips(space, latents, size.num_frames).float()


def own_latents(pipe: Any, noisy: Float[Tensor, "clip time channel height width"]) -> Tensor:
    """Latents as a pipeline's call takes them, in its layout or as tokens, and in its dtype."""
    kind = pipeline_kind(pipe)
    own: Tensor = noisy if kind.keeps_float32 else noisy.to(pipe.transformer.dtype)
    return own.movedim(2, -1).flatten(1, 3) if kind.tokens else kind.space(pipe).from_btchw(own)


def padded(space: LatentSpace, clips: Clips) -> Float[Tensor, "clip padded channel height width"]:
    """Clips with their first latent repeated in front, where the generator pads (CogVideoX 1.5)."""
    missing = -clips.shape[1] % (space.patch_size_t or 1)
    return torch.cat([clips[:, :1].expand(-1, missing, -1, -1, -1), clips], dim=1)
