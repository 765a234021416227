"""Best of n with an early look: finish only those candidates whose predicted clip scores well."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.reward import AnyReward
from gtsvj_reward.sampling.candidates import (
    BestOfN,
    Kept,
    Request,
    batches,
    best_first,
    best_of,
    check_counts,
    generators,
    scored,
    scoring_for,
)
from gtsvj_reward.sampling.clean import Step, predicted_clean_latents
from gtsvj_reward.sampling.methods import wrapped_method
from gtsvj_reward.sampling.pipelines import (
    OutputType,
    check_reproducible,
    check_scored,
    latent_space,
)

RESUMABLE = (CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler)
"""Schedulers whose steps depend on the latents and the schedule alone."""


@dataclass(frozen=True, kw_only=True, repr=False)
class SuccessiveHalving:
    """Candidates that were looked at early, and the best of those that were finished."""

    early_scores: Float[Tensor, " candidate"]
    """Score of each candidate's predicted clean latents at the early look; float32, on the CPU."""
    finished: tuple[int, ...]
    """Indices of the candidates that were finished, ascending."""
    best: BestOfN
    """Of the finished candidates; its indices count those, in the order of `finished`."""
    denoising_steps: int
    """Steps taken, over all candidates: n k + finished (steps - k)."""

    def __repr__(self) -> str:
        return (
            f"SuccessiveHalving({len(self.early_scores)} candidates, {len(self.finished)} "
            f"finished, winners {self.winners}, {self.denoising_steps} denoising steps)"
        )

    @property
    def winners(self) -> tuple[int, ...]:
        """The winners' indices among all candidates, best first."""
        return tuple(self.finished[index] for index in self.best.winners)


def successive_halving(
    pipe: Any,
    reward: AnyReward,
    prompt: str | None,
    n: int,
    *,
    look_at: int,
    finish: int,
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
) -> SuccessiveHalving:
    """Take `look_at` steps with all `n` candidates, and finish the `finish` best of them.

    Candidates are compared by the score of the clean latents that the model predicts at step
    `look_at`, without another pass of the transformer. A judge was not trained on such latents:
    the earlier the look, the less reliable its order. A finished candidate is what
    `best_of_n` makes of the same seed, to 1e-5.

    Args:
        pipe: a `CogVideoXPipeline` with a `CogVideoXDDIMScheduler`, or a `WanPipeline` with a
            `FlowMatchEulerDiscreteScheduler`. Multistep schedulers carry more from step to step
            than the latents, and are refused.
        reward: as for `best_of_n`, likewise the other arguments.
        prompt: one prompt; None with `prompt_embeds` in `call_arguments`.
        n: candidates.
        look_at: steps before the look, 1 to `num_inference_steps` - 1.
        finish: candidates to finish, `keep` to `n`.
        num_frames: frames of a clip: 4f + 1.
        height: of the frames.
        width: of the frames.
        num_inference_steps: denoising steps of a finished candidate.
        guidance_scale: None: the pipeline's default.
        keep: clips to decode.
        batch_size: candidates in one call of the pipeline.
        seed: of the first candidate.
        fps: of the video.
        text: prompt embeddings for a reward that reads prompts, one row. None: a judge that reads
            prompts, or a `PromptScore`, gets the pipeline's own embeddings of `prompt`.
        normalize: pass on to the reward.
        output_type: of the frames.
        keep_latents: return latents of the winners or of all finished candidates.
        call_arguments: further arguments of the pipeline's call, without callbacks.

    Raises:
        ValueError: as `best_of_n`; a scheduler that cannot be resumed; callbacks.
    """
    check_counts(n, keep, batch_size)
    check_look(n, keep, finish, look_at, num_inference_steps)
    check_scored(pipe)
    check_reproducible(pipe)
    check_resumable(pipe.scheduler)
    request = Request(
        prompt=prompt,
        num_frames=num_frames,
        height=height,
        width=width,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        call_arguments=call_arguments or {},
    )
    check_no_callback(request)
    space = latent_space(pipe)
    scoring = scoring_for(pipe, reward, space, request, fps, text, normalize)
    seeds = range(seed, seed + n)

    begun, early = [], []
    for indices in batches(range(n), batch_size):
        step = first_steps(pipe, request, [seeds[index] for index in indices], look_at)
        begun.append(step.following)
        with torch.no_grad():
            names = [f"candidate {index}" for index in indices]
            early.append(scoring.details(step.clean, names, unfinished=True).rewards.cpu())
    latents, early_scores = torch.cat(begun), torch.cat(early)
    finished = sorted(best_first(early_scores)[:finish])

    def generate(indices: Sequence[int]) -> Tensor:
        return last_steps(pipe, request, latents[list(indices)], look_at)

    best = best_of(
        pipe,
        space,
        scored(generate, scoring, finished, batch_size),
        seeds=[seeds[index] for index in finished],
        keep=keep,
        output_type=output_type,
        keep_latents=keep_latents,
    )
    return SuccessiveHalving(
        early_scores=early_scores,
        finished=tuple(finished),
        best=best,
        denoising_steps=n * look_at + finish * (num_inference_steps - look_at),
    )


def check_look(n: int, keep: int, finish: int, look_at: int, steps: int) -> None:
    """Reject a look outside the schedule, and a `finish` outside keep..n."""
    if not 1 <= look_at < steps:
        raise ValueError(
            f"`look_at` must be in 1..{steps - 1} (there are {steps} steps), got {look_at}"
        )
    if not keep <= finish <= n:
        raise ValueError(f"`finish` must be in keep..n = {keep}..{n}, got {finish}")


def check_resumable(scheduler: Any) -> None:
    """Reject a scheduler that cannot go on from latents alone."""
    if type(scheduler) not in RESUMABLE:
        raise ValueError(
            f"successive halving cannot resume {type(scheduler).__name__} from latents alone. Use "
            "`CogVideoXDDIMScheduler.from_config(pipe.scheduler.config)` for CogVideoX, or "
            "`FlowMatchEulerDiscreteScheduler(shift=pipe.scheduler.config.flow_shift)` for Wan"
        )


def check_no_callback(request: Request) -> None:
    """Reject callbacks of the caller, which would see parts of runs: ours ends the first phase."""
    given = sorted(name for name in request.call_arguments if name.startswith("callback"))
    if given:
        raise ValueError(f"successive halving takes no callbacks, got {', '.join(given)}")


def first_steps(pipe: Any, request: Request, seeds: Sequence[int], count: int) -> Step:
    """The last of the first `count` steps of some candidates; the pipeline stops there."""

    def stop(pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = index + 1 >= count  # diffusers' documented way to end a run early
        return tensors

    with predicted_clean_latents(pipe) as seen:
        latents = pipe(
            generator=generators(seeds),
            callback_on_step_end=stop,
            **request.arguments(pipe, len(seeds)),
        ).frames
    pipe._interrupt = False
    # The pipeline may have cast what the scheduler returned.
    return replace(seen.latest, following=latents)


def last_steps(pipe: Any, request: Request, latents: Tensor, taken: int) -> Tensor:
    """Clean latents of candidates that have taken some steps already."""
    with schedule_from(pipe.scheduler, taken):
        ended: Tensor = pipe(latents=latents, **request.arguments(pipe, len(latents))).frames
    return ended


@contextmanager
def schedule_from(scheduler: Any, taken: int) -> Iterator[None]:
    """Leave the first steps out of every schedule that the scheduler sets; the others are the same.

    The number of inference steps stays, from which CogVideoX computes its step size.
    """

    def shortened(set_timesteps: Callable[..., None], args: tuple[Any, ...], keywords: Any) -> None:
        set_timesteps(*args, **keywords)
        scheduler.timesteps = scheduler.timesteps[taken:]
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            scheduler.sigmas = scheduler.sigmas[taken:]

    with wrapped_method(scheduler, "set_timesteps", shortened):
        yield
