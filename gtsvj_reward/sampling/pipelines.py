"""What is known of each text-to-video pipeline: its latent space, and how it decodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.vae_lock import vae_lock

OutputType = Literal["np", "pil", "pt"]


@dataclass(frozen=True, kw_only=True)
class PipelineKind:
    """What tells the pipelines of one family from those of another."""

    space: Callable[[Any], LatentSpace]
    """Pipeline -> the space of what it generates."""
    decode: Callable[[Any, Tensor], Tensor]
    """Pipeline, latents in its own layout without padding -> what its VAE makes of them."""
    schedulers: tuple[type, ...] | None
    """Classes of schedulers that are known to draw no noise, for a pipeline that does not hand its
    generators to the scheduler; None for one that does."""


def decode_cogvideox(
    pipe: Any, latents: Float[Tensor, "clip steps channel rows columns"]
) -> Float[Tensor, "clip 3 time height width"]:
    """Pixels in [-1, 1], by the pipeline's own method."""
    pixels: Tensor = pipe.decode_latents(latents)
    return pixels


def decode_wan(
    pipe: Any, latents: Float[Tensor, "clip channel steps rows columns"]
) -> Float[Tensor, "clip 3 time height width"]:
    """Pixels in [-1, 1], by the operations inside `WanPipeline.__call__`: it has no method."""
    vae = pipe.vae
    latents = latents.to(vae.device, vae.dtype)
    mean, inverse_std = (
        values.view(1, -1, 1, 1, 1).to(latents.device, latents.dtype)
        for values in (
            torch.tensor(vae.config.latents_mean),
            # Divided by below, as the pipeline does, so that both round alike.
            1.0 / torch.tensor(vae.config.latents_std),
        )
    )
    pixels: Tensor = vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    return pixels


PIPELINES = {
    "CogVideoXPipeline": PipelineKind(
        space=LatentSpace.from_pipeline, decode=decode_cogvideox, schedulers=None
    ),
    "WanPipeline": PipelineKind(
        space=LatentSpace.from_pipeline,
        decode=decode_wan,
        schedulers=(FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler),
    ),
}
"""diffusers class name -> what is known of it. By name: older diffusers have no `WanPipeline`."""


def pipeline_kind(pipe: Any) -> PipelineKind:
    """What is known of a pipeline.

    Raises:
        ValueError: if its class is not in `PIPELINES`, naming it.
    """
    name = type(pipe).__name__
    if name not in PIPELINES:
        raise ValueError(
            f"cannot sample with a {name}; known pipelines: {', '.join(PIPELINES)}. Call it with "
            'output_type="latent" yourself, and hand the latents to the reward'
        )
    return PIPELINES[name]


def latent_space(pipe: Any) -> LatentSpace:
    """The space of what a text-to-video pipeline generates.

    Raises:
        ValueError: for a pipeline that is not known.
        LatentSpaceError: for a CogVideoX pipeline with a VAE of another family.
    """
    return pipeline_kind(pipe).space(pipe)


def check_reproducible(pipe: Any) -> None:
    """Refuse a scheduler whose noise, if it draws any, would not come from a candidate's seed.

    Raises:
        ValueError: naming the scheduler and what to use instead.
    """
    known, scheduler = pipeline_kind(pipe).schedulers, pipe.scheduler
    if known is None:
        return
    names = " or ".join(kind.__name__ for kind in known)
    if type(scheduler) not in known:
        raise ValueError(
            f"{type(pipe).__name__} gives its scheduler no generator, and "
            f"{type(scheduler).__name__} is not known to draw no noise, so that a candidate would "
            f"not be reproducible from its seed: use {names}"
        )
    if scheduler.config.get("stochastic_sampling", False):
        raise ValueError(
            f"{type(scheduler).__name__} with stochastic_sampling=True draws noise that "
            f"{type(pipe).__name__} does not seed: candidates would not be reproducible"
        )


def as_clips(
    space: LatentSpace, latents: Float[Tensor, "clip a b height width"], num_frames: int
) -> Float[Tensor, "clip time channel height width"]:
    """A pipeline's latents in this package's order, without the padding of CogVideoX 1.5.

    Raises:
        LatentSpaceError: if channels or length are not what the space and `num_frames` say.
    """
    return space.unpad(space.to_btchw(latents), num_frames)


@torch.no_grad()
def decode_clip(
    pipe: Any,
    space: LatentSpace,
    latents: Float[Tensor, "time channel height width"],
    output_type: OutputType,
) -> Any:
    """One decoded clip, as the pipeline's `frames[0]` would be, by one call of its VAE."""
    own = space.from_btchw(latents[None]).contiguous()
    with vae_lock(pipe.vae):
        pixels = pipeline_kind(pipe).decode(pipe, own)
    return pipe.video_processor.postprocess_video(video=pixels, output_type=output_type)[0]
