"""The toy world's generators, as the `CogVideoXPipeline` and the `WanPipeline` that they are."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.assets import folder_of
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.dtypes import weights_in
from gtsvj_reward.latents import LatentSpace, vae_lock
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.words import TEXT_LENGTH
from gtsvj_reward.toy.world import FRAMES, SIZE, Frames

Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)

PIPELINE = "gtsvj-toy-pipeline"
UNSTEADY = "gtsvj-toy-unsteady"
FLOW = "gtsvj-toy-flow-pipeline"
FLOW_UNSTEADY = "gtsvj-toy-flow-unsteady"
BASES = {PIPELINE: PIPELINE, UNSTEADY: PIPELINE, FLOW: FLOW, FLOW_UNSTEADY: FLOW}
"""Generator -> the pipeline that it is, or is an adapter of."""
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


def load_pipeline(source: str | Path = PIPELINE, *, dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline on the CPU, without gradients and without progress bars.

    Args:
        source: a folder; `gtsvj-toy-pipeline`, a `CogVideoXPipeline`; `gtsvj-toy-flow-pipeline`, a
            `WanPipeline` with the same codec; or `gtsvj-toy-unsteady` and
            `gtsvj-toy-flow-unsteady`, the same generators fine-tuned on clips of which half flicker
            or drift in colour, as a start for alignment.
        dtype: of the weights, but for those that diffusers keeps in float32.
    """
    base = BASES.get(str(source), source)
    folder = Path(folder_of(base))
    shares_codec = not (folder / "vae").is_dir()
    parts: dict[str, Any] = {"vae": None} if shares_codec else {}
    pipe = DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, **parts, **weights_in(dtype)
    )
    if shares_codec:
        # Later: `WanPipeline` would look for settings of Wan's own VAE in it.
        pipe.register_modules(vae=load_vae(PIPELINE, dtype=dtype))
    if base != source:
        pipe.load_lora_weights(folder_of(source))
        pipe.fuse_lora(components=["transformer"])
        pipe.unload_lora_weights()
    return frozen(with_short_texts(pipe))


def with_short_texts(pipe: Pipeline) -> Pipeline:
    """The pipeline itself, whose `max_sequence_length` is at most that of its transformer.

    Sets the default; those of the pipelines' classes are for published models.
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
    pipe: DiffusionPipeline,
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
    # `WanPipeline` has (clip channel time height width).
    return result.transpose(1, 2) if type(pipe).__name__ == "WanPipeline" else result


def decode(pipe: DiffusionPipeline, latents: Tensor) -> list[Frames]:
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
