"""From ratings and latents to a judge on disk; the work of `gtsvj train-aspects`."""

import logging

from transformers import set_seed

from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.aspects.data import RatedClip, with_labels
from gtsvj_reward.training.aspects.labels import choose_aspects, rated_clips
from gtsvj_reward.training.aspects.settings import AspectConfig, RatingsData
from gtsvj_reward.training.aspects.trainer import AspectTrainer
from gtsvj_reward.training.labelled import (
    calibration_clips,
    earlier_training,
    judge_of_stage_before,
)
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import hold_out

logger = logging.getLogger(__name__)


def train_aspects(judge_arguments: JudgeArguments, args: AspectConfig) -> AspectTrainer:
    """Train stage 2 and write the judge to `output_dir`; the work of `gtsvj train-aspects`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    rated, held_out, aspects, space = rated_and_held_out(args)
    if args.from_judge is None:
        if args.keep_energy:
            raise ValueError("`keep_energy` needs `from_judge`: a bare base model has no energy")
        judge = build_judge(
            judge_arguments,
            space,
            seed=args.seed,
            aspects=aspects,
            time_pooling=args.time_pooling,
        )
        before = {"started from": "the bare base model (No DM)"}
    else:
        judge = judge_of_stage_before(judge_arguments, args)
        before = earlier_training(judge.config)
        judge.start_aspects(
            aspects,
            head_width=judge_arguments.head_width,
            token_pooling=judge_arguments.token_pooling,
            time_pooling=args.time_pooling,
            keep_energy=args.keep_energy,
            seed=args.seed,
        )
    trainer = AspectTrainer(
        judge,
        args,
        train_dataset=rated,
        eval_dataset=held_out,
        calibration=calibration_clips(args),
        before=before,
    )
    trainer.run()
    return trainer


def rated_and_held_out(
    args: RatingsData,
) -> tuple[list[RatedClip], list[RatedClip], tuple[Aspect, ...], LatentSpace]:
    """Clips to train on, clips held out, what is rated, and the latent space of the clips."""
    folder = LatentFolder(args.latents)
    rated, scales = rated_clips(args.ratings, folder, args)
    given = None
    if args.held_out_ratings is not None:
        given, _ = rated_clips(args.held_out_ratings, folder, args)
    rated, held_out = hold_out(
        rated,
        given,
        lambda clip: [clip.info],
        count=max(1, round(args.held_out_fraction * len(rated))),
        args=args,
        setting="held_out_ratings",
        group=lambda clip: clip.group,
    )
    aspects = choose_aspects(args.aspects, scales)
    rated, bare = with_labels(rated, aspects)
    held_out, held_out_bare = with_labels(held_out, aspects)
    if bare or held_out_bare:
        logger.warning(
            "left out without any label: %d training and %d held-out clips", bare, held_out_bare
        )
    return rated, held_out, aspects, folder.space
