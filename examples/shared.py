"""What the example scripts do before their own part begins."""

import sys
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from diffusers import CogVideoXPipeline
from transformers import HfArgumentParser

from gtsvj_reward import GTSVJReward
from gtsvj_reward.alignment import AlignArguments, AlignmentRun, Gold, Policy
from gtsvj_reward.assets import folder_of
from gtsvj_reward.cli.parsing import with_config
from gtsvj_reward.toy.detector import caption_log_probability, load_detector
from gtsvj_reward.toy.pipeline import PIPELINE, decode
from gtsvj_reward.toy.world import captions

Arguments = TypeVar("Arguments", bound=AlignArguments)


def parse(kind: type[Arguments], argv: list[str] | None = None) -> Arguments:
    """Settings from the command line and, before it, from `--config FILE.yaml`."""
    given = with_config(sys.argv[1:] if argv is None else argv)
    (arguments,) = HfArgumentParser(kind).parse_args_into_dataclasses(args=given)
    return arguments


def make_run(
    arguments: AlignArguments,
    reward: GTSVJReward | None = None,
    extra: dict[str, Any] | None = None,
) -> AlignmentRun:
    """Pipeline, judges that share its weights, policy, and everything around them.

    Args:
        arguments: of the run.
        reward: what to train on; None loads the judge that the arguments name.
        extra: objects whose state belongs into checkpoints.
    """
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        log_with=None if arguments.report_to == "none" else arguments.report_to,
        project_dir=arguments.output_dir,
        cpu=arguments.device == "cpu",
    )
    accelerator.init_trackers("gtsvj_reward")
    pipe = load(arguments).to(accelerator.device)
    # A judge reads the weights below the policy's adapter, which training leaves as they are.
    judges = {
        name: GTSVJReward.from_pretrained(
            name, transformer=pipe.transformer, device=accelerator.device
        )
        for name in [arguments.reward, *arguments.gold]
    }
    policy = Policy(
        pipe,
        arguments.size,
        guidance=arguments.guidance_scale,
        rank=arguments.lora_rank,
        alpha=arguments.lora_alpha,
        seed=arguments.seed,
        gradient_checkpointing=arguments.gradient_checkpointing,
        autocast=accelerator.autocast,
    )
    for judge in judges.values():
        judge.judge.backbone.gradient_checkpointing = arguments.gradient_checkpointing
    golds = {name: watching(judges[name], policy, arguments.fps) for name in arguments.gold}
    if is_toy(arguments):
        golds["caption"] = caption_gold(pipe)
    return AlignmentRun(
        arguments,
        policy,
        reward or judges[arguments.reward],
        golds=golds,
        prompts=arguments.read_prompts(captions() if is_toy(arguments) else []),
        accelerator=accelerator,
        extra=extra,
    )


def load(arguments: AlignArguments) -> CogVideoXPipeline:
    """The pipeline, frozen, in the dtype that was asked for."""
    pipe = CogVideoXPipeline.from_pretrained(
        folder_of(arguments.pretrained_model),
        torch_dtype=getattr(torch, arguments.dtype),
        use_safetensors=True,
    )
    for module in (pipe.transformer, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def is_toy(arguments: AlignArguments) -> bool:
    return arguments.pretrained_model == PIPELINE


def watching(judge: GTSVJReward, policy: Policy, fps: float) -> Gold:
    """A judge that is not trained on."""
    return lambda latents, _texts: judge(latents, space=policy.space, fps=fps)


def caption_gold(pipe: CogVideoXPipeline) -> Gold:
    """The toy world's own measure: how likely its detector finds what was asked for."""
    detector = load_detector()
    return lambda latents, texts: caption_log_probability(
        detector, torch.stack(decode(pipe, latents)), texts
    )
