"""Generate many, score their latents, decode the best."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.reward import AnyReward
from gtsvj_reward.sampling.candidates import (
    BestOfN,
    Kept,
    Request,
    best_of,
    check_counts,
    generators,
    scored,
    scoring_for,
)
from gtsvj_reward.sampling.pipelines import (
    OutputType,
    check_reproducible,
    check_scored,
    latent_space,
)


def best_of_n(
    pipe: Any,
    reward: AnyReward,
    prompt: str | None,
    n: int,
    *,
    num_frames: int,
    height: int,
    width: int,
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    keep: int = 1,
    batch_size: int = 1,
    seed: int = 0,
    fps: float | None = None,
    text: TextCondition | None = None,
    normalize: bool = True,
    output_type: OutputType = "np",
    keep_latents: Kept = "winners",
    call_arguments: Mapping[str, Any] | None = None,
) -> BestOfN:
    """Generate `n` clips of one prompt as latents, score them, and decode the `keep` best only.

    Candidate i is what the pipeline makes with a CPU generator of seed `seed + i`, to 1e-5
    whatever the batch. Candidates are scored batch by batch, so that a reward rejects clips early;
    it must score each clip by itself.

    Args:
        pipe: a `CogVideoXPipeline`, `HunyuanVideoPipeline` or `WanPipeline`.
        reward: anything that is called as `GTSVJReward` is; gets latents (batch, time, channel,
            height, width) without padding, the pipeline's latent space, and `num_frames`.
        prompt: one prompt; None with `prompt_embeds` in `call_arguments`.
        n: candidates.
        num_frames: frames of a clip: 4f + 1.
        height: of the frames.
        width: of the frames.
        num_inference_steps: denoising steps.
        guidance_scale: None: the pipeline's default.
        keep: clips to decode, each by one call of the VAE.
        batch_size: candidates in one call of the pipeline: as many as memory holds.
        seed: of the first candidate.
        fps: of the video, for rewards that check it.
        text: prompt embeddings for a reward that reads prompts, one row. None: a judge that reads
            prompts, or a `PromptScore`, gets the pipeline's own embeddings of `prompt`.
        normalize: pass on to the reward.
        output_type: of the frames, as for the pipeline.
        keep_latents: return latents of the winners or of all candidates.
        call_arguments: further arguments of the pipeline's call; `prompt_embeds` and
            `negative_prompt_embeds` with one row.

    Raises:
        ValueError: numbers out of range, arguments given twice, a pipeline or scheduler that is
            not supported; and what the reward raises.
    """
    check_counts(n, keep, batch_size)
    check_scored(pipe)
    check_reproducible(pipe)
    request = Request(
        prompt=prompt,
        num_frames=num_frames,
        height=height,
        width=width,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        call_arguments=call_arguments or {},
    )
    space = latent_space(pipe)
    scoring = scoring_for(pipe, reward, space, request, fps, text, normalize)
    seeds = range(seed, seed + n)

    def generate(indices: Sequence[int]) -> Tensor:
        own = generators([seeds[index] for index in indices])
        latents: Tensor = pipe(generator=own, **request.arguments(pipe, len(indices))).frames
        return latents

    return best_of(
        pipe,
        space,
        scored(generate, scoring, range(n), batch_size),
        seeds=seeds,
        keep=keep,
        output_type=output_type,
        keep_latents=keep_latents,
    )
