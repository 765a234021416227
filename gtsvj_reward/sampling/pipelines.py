"""The latent space of each text-to-video pipeline, and how it decodes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.assets import folder_of
from gtsvj_reward.dtypes import weights_in
from gtsvj_reward.files import is_hub_id
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.vae_lock import vae_lock
from gtsvj_reward.sampling.schedules import (
    hunyuan_video_timesteps,
    ltx_timesteps,
    mochi_timesteps,
    plain_timesteps,
)

OutputType = Literal["np", "pil", "pt"]


@dataclass(frozen=True)
class ClipSize:
    """The size of the clips that a pipeline is asked for."""

    num_frames: int
    """Frames of a clip."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""


@dataclass(frozen=True, kw_only=True)
class PipelineKind:
    """How the pipelines of a family differ from others."""

    space: Callable[[Any], LatentSpace]
    """Pipeline -> the space of what it generates."""
    decode: Callable[[Any, Tensor], Tensor] | None
    """Pipeline, latents in the space's layout without padding -> what its VAE makes of them; None
    for a family of which clips are made, but not scored while they are."""
    schedulers: tuple[type, ...] | None
    """Classes of schedulers that are known to draw no noise, for a pipeline that does not hand its
    generators to the scheduler; None for one that does."""
    arguments: Callable[[Any], dict[str, Any]]
    """Pipeline -> what every call of it needs besides prompt, size and steps."""
    patch: Callable[[Any], int]
    """Pipeline -> latents that its transformer joins, in height and in width."""
    keeps_float32: bool
    """Whether latents are in float32 between the steps, whatever the weights are in."""
    timesteps: Callable[[Any, int, int], None] = plain_timesteps
    """Sets a scheduler to a number of steps, as the pipeline's call does; the last argument is the
    number of latents over time, height and width."""
    least_steps: int = 1
    """Denoising steps that the pipeline can do with."""
    told_fps: bool = False
    """Whether the model is told the frame rate."""
    tokens: bool = False
    """Whether the pipeline's own latents are tokens (clip, token, channel)."""


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


def decode_hunyuan_video(
    pipe: Any, latents: Float[Tensor, "clip channel steps rows columns"]
) -> Float[Tensor, "clip 3 time height width"]:
    """Pixels in [-1, 1], by the operations inside `HunyuanVideoPipeline.__call__`."""
    vae = pipe.vae
    latents = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    pixels: Tensor = vae.decode(latents, return_dict=False)[0]
    return pixels


PIPELINES = {
    "CogVideoXPipeline": PipelineKind(
        space=LatentSpace.from_pipeline,
        decode=decode_cogvideox,
        schedulers=None,
        arguments=lambda pipe: {"max_sequence_length": pipe.transformer.config.max_text_seq_length},
        patch=lambda pipe: int(pipe.transformer.config.patch_size),
        keeps_float32=False,
    ),
    "HunyuanVideoPipeline": PipelineKind(
        space=LatentSpace.from_pipeline,
        decode=decode_hunyuan_video,
        schedulers=(FlowMatchEulerDiscreteScheduler,),
        arguments=lambda _pipe: {},
        patch=lambda pipe: int(pipe.transformer.config.patch_size),
        keeps_float32=True,
        timesteps=hunyuan_video_timesteps,
    ),
    "LTXPipeline": PipelineKind(
        space=LatentSpace.from_pipeline,
        decode=None,
        schedulers=(FlowMatchEulerDiscreteScheduler,),
        arguments=lambda _pipe: {},
        patch=lambda _pipe: 1,  # the pipeline's tokens are single latents
        keeps_float32=True,
        timesteps=ltx_timesteps,
        told_fps=True,
        tokens=True,
    ),
    "MochiPipeline": PipelineKind(
        space=LatentSpace.from_pipeline,
        decode=None,
        schedulers=(FlowMatchEulerDiscreteScheduler,),
        arguments=lambda _pipe: {},
        patch=lambda pipe: int(pipe.transformer.config.patch_size),
        keeps_float32=False,
        timesteps=mochi_timesteps,
        least_steps=2,
    ),
    "WanPipeline": PipelineKind(
        # Whatever its VAE: that of the toy world's `WanPipeline` is one of CogVideoX.
        space=lambda pipe: replace(LatentSpace.from_pipeline(pipe), layout="BCTHW"),
        decode=decode_wan,
        schedulers=(FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler),
        arguments=lambda _pipe: {},
        patch=lambda pipe: int(pipe.transformer.config.patch_size[1]),
        keeps_float32=True,
    ),
}
"""diffusers class name -> what is known of it. By name: older diffusers have no `WanPipeline`."""


def load_pipeline(source: str | Path, *, dtype: torch.dtype, device: str | torch.device) -> Any:
    """A known pipeline, without gradients and without progress bars.

    Args:
        source: a bundled name, a folder or a hub id.
        dtype: of all weights.
        device: where it goes.

    Raises:
        FileNotFoundError: if it is none of these.
        ValueError: for a pipeline that is not known; its weights are not fetched.
    """
    folder = folder_of(source)
    if not (Path(folder) / "model_index.json").is_file() and not is_hub_id(str(source)):
        raise FileNotFoundError(
            f"no pipeline {str(source)!r}: not a bundled name (gtsvj-toy-pipeline), a local folder "
            "with a `model_index.json` or a hub id (owner/name)"
        )
    kind_named(str(DiffusionPipeline.load_config(folder)["_class_name"]))
    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **weights_in(dtype))
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def pipeline_kind(pipe: Any) -> PipelineKind:
    """What is known of a pipeline.

    Raises:
        ValueError: if its class is not in `PIPELINES`, naming it.
    """
    return kind_named(type(pipe).__name__)


def kind_named(name: str) -> PipelineKind:
    """What is known of the pipelines of a class.

    Raises:
        ValueError: if it is not in `PIPELINES`, naming it.
    """
    if name not in PIPELINES:
        raise ValueError(
            f"cannot sample with a {name}; known pipelines: {', '.join(PIPELINES)}. Call it with "
            'output_type="latent" yourself, and pass the latents to the reward'
        )
    return PIPELINES[name]


def check_scored(pipe: Any) -> None:
    """Reject a pipeline whose clips are not scored and decoded while it samples.

    Raises:
        ValueError: if its class is not known, or known to `gtsvj negatives` alone.
    """
    if pipeline_kind(pipe).decode is None:
        known = [name for name, kind in PIPELINES.items() if kind.decode is not None]
        raise ValueError(
            f"a {type(pipe).__name__} can make negatives, but its clips cannot be scored during "
            f'sampling; supported: {", ".join(known)}. Call it with output_type="latent" '
            "yourself, and pass the latents to the reward"
        )


def check_steps(pipe: Any, steps: int, *, from_noise: bool = True) -> None:
    """Reject fewer steps than a pipeline can do with.

    Args:
        pipe: a pipeline of `PIPELINES`.
        steps: denoising steps.
        from_noise: whether its own schedule is used, and not a part of it.

    Raises:
        ValueError: naming both.
    """
    least = pipeline_kind(pipe).least_steps
    if from_noise and pipe.scheduler.config.get("shift_terminal"):
        least = max(least, 2)  # the schedule is stretched from the first step to the last
    if steps < least:
        raise ValueError(
            f"the schedule of a {type(pipe).__name__} takes at least {least} steps, got {steps}: "
            "give `renoise_steps` and `sample_steps` of that many or more"
        )


def latent_space(pipe: Any) -> LatentSpace:
    """The space of what a text-to-video pipeline generates.

    Raises:
        ValueError: for a pipeline that is not known.
        LatentSpaceError: for a CogVideoX pipeline with a VAE of another family.
    """
    return pipeline_kind(pipe).space(pipe)


def check_reproducible(pipe: Any) -> None:
    """Reject a scheduler that may draw noise which a candidate's seed does not decide."""
    known, scheduler = pipeline_kind(pipe).schedulers, pipe.scheduler
    if known is None:
        return
    names = " or ".join(kind.__name__ for kind in known)
    if type(scheduler) not in known:
        raise ValueError(
            f"{type(pipe).__name__} gives its scheduler no generator, and "
            f"{type(scheduler).__name__} may draw noise: candidates would not be reproducible from "
            f"their seeds. Use {names}"
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
    check_scored(pipe)
    own = space.from_btchw(latents[None]).contiguous()
    decode = cast(Callable[[Any, Tensor], Tensor], pipeline_kind(pipe).decode)
    with vae_lock(pipe.vae):
        pixels = decode(pipe, own)
    return pipe.video_processor.postprocess_video(video=pixels, output_type=output_type)[0]
