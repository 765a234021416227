"""From folders and arguments to a fresh judge, and where a run goes on."""

import logging
from collections.abc import Sequence
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import backbone_for, load_transformer
from gtsvj_reward.dtypes import dtype_of
from gtsvj_reward.judge import Aspect, JudgeConfig, VideoJudge
from gtsvj_reward.judge.heads import TimePooling
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.training.arguments import JudgeArguments, JudgeTrainingConfig

logger = logging.getLogger(__name__)


def build_judge(
    arguments: JudgeArguments,
    space: LatentSpace,
    *,
    seed: int,
    aspects: Sequence[Aspect] = (),
    time_pooling: TimePooling = "mean",
) -> VideoJudge:
    """A fresh judge on a base model from disk or a hub: a discriminator, or one of aspects.

    Args:
        arguments: what to build.
        space: the latent space of the clips it will see.
        seed: seeds head and adapter.
        aspects: for a judge of stage `aspects` that was no discriminator before.
        time_pooling: of such a judge.

    Raises:
        ValueError: without a base model.
    """
    if not arguments.base_model:
        raise ValueError("`base_model` must be set: a bundled name, a folder or a hub id")
    transformer = load_transformer(
        folder_of(arguments.base_model), depth=arguments.depth, revision=arguments.base_revision
    )
    backbone = backbone_for(transformer)
    if arguments.base_dtype != "auto":
        backbone.cast(dtype_of(arguments.base_dtype))
    config = JudgeConfig(
        base_model=arguments.base_model,
        base_revision=arguments.base_revision,
        latent_space=space,
        stage="aspects" if aspects else "discriminator",
        aspects=tuple(aspects),
        time_pooling=time_pooling,
        depth=arguments.depth,
        latent_pooling=arguments.latent_pooling,
        temporal_stride=arguments.temporal_stride,
        text_tokens=arguments.text_tokens,
        lora_rank=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_placement=arguments.lora_placement,
        head_width=arguments.head_width,
        token_pooling=arguments.token_pooling,
        timestep=arguments.timestep,
    )
    return VideoJudge.from_transformer(backbone, config, seed=seed)


def resume_point(args: JudgeTrainingConfig) -> str | bool | None:
    """The checkpoint to go on from: the one that was asked for, or the last in `output_dir`."""
    resume: str | bool | None = args.resume_from_checkpoint
    if resume is None and Path(str(args.output_dir)).is_dir():
        resume = get_last_checkpoint(args.output_dir)
        if resume is not None:
            logger.warning("resuming from %s; choose another output_dir to start anew", resume)
    return resume


def check_apart(train: Sequence[ClipInfo], held_out: Sequence[ClipInfo]) -> None:
    """Refuse clips that are both trained on and held out, by the hash of their source.

    Raises:
        ValueError: with their number and the first pair.
    """
    seen = {info.source_sha256: info for info in train if info.source_sha256}
    both = [(info, seen[info.source_sha256]) for info in held_out if info.source_sha256 in seen]
    if both:
        raise ValueError(
            f"{len(both)} held-out clips are trained on as well; the first is {both[0][0].path}, "
            f"the same video as {both[0][1].path}. Held-out figures would mean nothing"
        )
