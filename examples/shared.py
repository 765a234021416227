"""Common setup of the example scripts."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from transformers import HfArgumentParser

from gtsvj_reward import GTSVJReward, PromptScore
from gtsvj_reward.alignment import (
    AlignArguments,
    AlignmentRun,
    EvalMetric,
    Policy,
    Refits,
    Sampler,
)
from gtsvj_reward.alignment.rewards import (
    judges_of,
    refitted_judge,
    refuse_images,
    reward_of,
    with_judge,
)
from gtsvj_reward.dtypes import dtype_of, weights_in
from gtsvj_reward.flags import in_flags, with_config
from gtsvj_reward.judge import OtherBaseError
from gtsvj_reward.toy.detector import caption_log_probability, load_detector
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import BASES, decode, frozen, load_pipeline
from gtsvj_reward.toy.world import captions

Arguments = TypeVar("Arguments", bound=AlignArguments)


def parse(kind: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Settings from the command line and, before it, from `--config FILE.yaml`."""
    given = with_config(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(kind)
    try:
        (arguments,) = parser.parse_args_into_dataclasses(args=given)
    except ValueError as error:
        flags = {option.removeprefix("--") for option in parser._option_string_actions}
        raise ValueError(in_flags(str(error), flags)) from None
    return arguments


def make_run(arguments: AlignArguments, extra: dict[str, Any] | None = None) -> AlignmentRun:
    """Pipeline, judges that share its weights, policy, and everything around them.

    Args:
        arguments: of the run.
        extra: objects whose state belongs into checkpoints.
    """
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        log_with=None if arguments.report_to == "none" else arguments.report_to,
        project_dir=arguments.output_dir,
        cpu=arguments.device == "cpu",
    )
    accelerator.init_trackers("gtsvj_reward")
    pipe = placed(load(arguments), arguments, accelerator.device)
    checked = arguments.check_statistics
    kept = {"aspects": arguments.aspects or None, "check_statistics": checked}
    made = partial(GTSVJReward, pessimism=arguments.pessimism, **kept)
    trained = reward_of(
        arguments.terms,
        judge=lambda name: made(load_judge(name, arguments, pipe).judge),
        prompt_score=lambda: PromptScore(pipe, check_statistics=checked),
    )
    watched = {name: load_judge(name, arguments, pipe) for name in arguments.eval_metrics}
    for name, judge in watched.items():
        refuse_images(judge.config, f"the judge of `eval_metrics` ({name})")
    policy = Policy(
        pipe,
        arguments.size,
        guidance=arguments.guidance_scale,
        rank=arguments.lora_rank,
        alpha=arguments.lora_alpha,
        sde=arguments.sde,
        flow_shift=arguments.flow_shift,
        fps=arguments.fps,
        seed=arguments.seed,
        gradient_checkpointing=arguments.gradient_checkpointing,
        autocast=accelerator.autocast,
    )
    for judge in (*judges_of(trained).values(), *watched.values()):
        judge.judge.backbone.gradient_checkpointing = arguments.gradient_checkpointing
    metrics = {name: watching(judge, policy, arguments.fps) for name, judge in watched.items()}
    if arguments.pretrained_model in BASES:
        metrics |= toy_metrics(pipe)
    prompts = arguments.read_prompts(captions() if arguments.pretrained_model in BASES else [])
    sampler = Sampler(arguments, policy, prompts, accelerator)
    refits = None
    if arguments.refit_every:
        name, judge = refitted_judge(trained)
        refits = Refits(
            sampler,
            judge.judge,
            rebuild=lambda judge: with_judge(trained, name, made(judge)),
        )
        # The judge that the run began with goes on as a guard.
        first = GTSVJReward(judge.judge, **kept)
        metrics["first judge"] = watching(first, policy, arguments.fps)
    return AlignmentRun(sampler, trained, eval_metrics=metrics, extra=extra, refits=refits)


def load(arguments: AlignArguments) -> Any:
    """The frozen pipeline of any family, in the requested dtype."""
    dtype = dtype_of(arguments.dtype)
    if arguments.pretrained_model in BASES:
        pipe = load_pipeline(arguments.pretrained_model)
        return pipe if dtype == torch.float32 else pipe.to(dtype)
    pipe = DiffusionPipeline.from_pretrained(
        arguments.pretrained_model, use_safetensors=True, **weights_in(dtype)
    )
    return frozen(pipe)


def placed(pipe: Any, arguments: AlignArguments, device: torch.device) -> Any:
    """The pipeline on a device, but for a VAE that a run has no use for."""
    decodes = arguments.samples > 0 or arguments.pretrained_model in BASES  # their pixels measure
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and (decodes or name != "vae"):
            part.to(device)
    return pipe


def load_judge(name: str, arguments: AlignArguments, pipe: Any) -> GTSVJReward:
    """A judge on the pipeline's weights below the policy's adapter, of its own, or live.

    The unsteady toys' weights are not those that any judge was trained on.
    """
    load = partial(
        GTSVJReward.from_pretrained,
        name,
        check_statistics=arguments.check_statistics,
        device=pipe.device,
    )
    base = BASES.get(arguments.pretrained_model, arguments.pretrained_model)
    if arguments.judge_weights == "own" or base != arguments.pretrained_model:
        return load()
    try:
        return load(transformer=pipe.transformer, live=arguments.judge_weights == "live")
    except OtherBaseError as error:
        raise OtherBaseError(
            f"{error}. A judge of another generator than --pretrained_model needs its own base: "
            "--judge_weights own"
        ) from error


def watching(judge: GTSVJReward, policy: Policy, fps: float) -> EvalMetric:
    """A judge that is not trained on; one that reads prompts is given them."""

    def watched(latents: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        text = policy.text(texts) if judge.wants_text else None
        return judge(latents, space=policy.space, fps=fps, text=text)

    return watched


def toy_metrics(pipe: Any) -> dict[str, EvalMetric]:
    """Pixel metrics of toy clips, without a judge."""
    detector, latest = load_detector().to(pipe.device), [torch.empty(0), torch.empty(0)]

    def frames(latents: torch.Tensor) -> torch.Tensor:
        if latest[0] is not latents:  # both measures are asked about the same clips
            latest[:] = latents, torch.stack(decode(pipe, latents))
        return latest[1]

    return {
        "steadiness": lambda latents, _texts: steadiness(frames(latents)),
        "caption": lambda latents, texts: caption_log_probability(detector, frames(latents), texts),
    }
