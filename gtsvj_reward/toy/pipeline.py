"""The toy world's generator as the `CogVideoXPipeline` that it is."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import CogVideoXPipeline, DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.assets import folder_of
from gtsvj_reward.dtypes import weights_in
from gtsvj_reward.latents import LatentSpace, vae_lock
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.words import TEXT_LENGTH
from gtsvj_reward.toy.world import FRAMES, SIZE, Frames

Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)

PIPELINE = "gtsvj-toy-pipeline"
UNSTEADY = "gtsvj-toy-unsteady"
STEPS = 25
"""Default denoising steps."""
GUIDANCE = 3.0
"""Default classifier-free guidance."""

CALL: dict[str, Any] = {
    "num_frames": FRAMES,
    "height": SIZE,
    "width": SIZE,
    "max_sequence_length": TEXT_LENGTH,
}
"""Arguments of every pipeline call: size and text length."""


def load_pipeline(source: str | Path = PIPELINE) -> CogVideoXPipeline:
    """A pipeline in float32 on the CPU, without gradients and without progress bars.

    Args:
        source: a folder; `gtsvj-toy-pipeline`; or `gtsvj-toy-unsteady`, the same generator
            fine-tuned on
    clips of which half flicker or drift in colour, as a start for alignment.
    """
    lora = folder_of(UNSTEADY) if str(source) == UNSTEADY else None
    pipe = CogVideoXPipeline.from_pretrained(
        folder_of(PIPELINE if lora else source), use_safetensors=True, **weights_in(torch.float32)
    )
    if lora:
        pipe.load_lora_weights(lora)
        pipe.fuse_lora(components=["transformer"])
        pipe.unload_lora_weights()
    return frozen(with_short_texts(pipe))


def with_short_texts(pipe: CogVideoXPipeline) -> CogVideoXPipeline:
    """The pipeline itself, whose `max_sequence_length` is at most that of its transformer.

    Sets the default; `CogVideoXPipeline`'s own, 226, is for published models.
    """
    pipe.encode_prompt = partial(encode_short, pipe.encode_prompt)
    return pipe


def encode_short(
    encode: Any, *args: Any, max_sequence_length: int = TEXT_LENGTH, **keywords: Any
) -> Any:
    """`encode_prompt` of a pipeline, with texts of `TEXT_LENGTH` tokens at most."""
    return encode(*args, max_sequence_length=min(max_sequence_length, TEXT_LENGTH), **keywords)


def frozen(pipe: Pipeline) -> Pipeline:
    """The pipeline itself, without gradients and without progress bars."""
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(
    pipe: CogVideoXPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "clip time channel height width"]:
    """Latents of one clip per prompt and seed; a clip depends only on its own seed, up to rounding.

    Raises:
        ValueError: if there are not as many seeds as prompts.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
    result: Tensor = pipe(
        prompt=list(prompts),
        generator=[keyed_generator(seed) for seed in seeds],
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
        **CALL,
    ).frames
    return result


def decode(pipe: CogVideoXPipeline, latents: Tensor) -> list[Frames]:
    """Pixels of each clip; `LatentSpace.decode` to rounding, faster for small clips.

    Raises:
        ValueError: for an even number of latent frames, which the VAE decodes to too many frames.
    """
    if latents.shape[1] % 2 == 0:
        raise ValueError(
            f"expected an odd number of latent frames, got {latents.shape[1]}: decode with "
            "`LatentSpace.decode`"
        )
    space = LatentSpace.from_vae(pipe.vae)
    clips: list[Frames] = []
    with torch.no_grad():
        for part in latents.split(8):
            with vae_lock(pipe.vae):
                video = pipe.vae.decode(space.unscale(part).transpose(1, 2)).sample
            clips.extend((127.5 * (video.permute(0, 2, 3, 4, 1) + 1)).round().clamp(0, 255).byte())
    return clips
