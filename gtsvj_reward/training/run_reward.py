"""From label files and latents to judges of stages 2 and 3; the work of two commands."""

import json
import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from transformers import set_seed

from gtsvj_reward.judge import VideoJudge, load_judge, resolve_checkpoint
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.aspects import AspectTrainer
from gtsvj_reward.training.label_files import (
    choose_aspects,
    compared_clips,
    rated_clips,
    split_rated,
)
from gtsvj_reward.training.labelled import ClipPair, clip_identity, split_pairs, with_labels
from gtsvj_reward.training.preference import PreferenceTrainer, clips_of
from gtsvj_reward.training.reward_arguments import (
    AspectConfig,
    PreferenceConfig,
    RewardStageConfig,
)
from gtsvj_reward.training.reward_stage import CLIPS_FILE, earlier_training
from gtsvj_reward.training.run import build_judge, check_apart, resume_point

logger = logging.getLogger(__name__)


def train_aspects(judge_arguments: JudgeArguments, args: AspectConfig) -> AspectTrainer:
    """Train stage 2 and write the judge to `output_dir`; the work of `gtsvj train-aspects`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    folder = LatentFolder(args.latents)
    rated, scales = rated_clips(args.ratings, folder, args)
    if args.held_out_ratings is None:
        rated, held_out = split_rated(rated, args.held_out_fraction, args.seed)
    else:
        held_out, _ = rated_clips(args.held_out_ratings, folder, args)
        check_apart([clip.info for clip in rated], [clip.info for clip in held_out])
    aspects = choose_aspects(args.aspects, scales)
    rated, bare = with_labels(rated, aspects)
    held_out, held_out_bare = with_labels(held_out, aspects)
    if bare or held_out_bare:
        logger.warning(
            "left out for want of any label: %d training and %d held-out clips", bare, held_out_bare
        )
    if args.from_judge is None:
        if args.keep_energy:
            raise ValueError("`keep_energy` needs `from_judge`: a bare base model has no energy")
        judge = build_judge(
            judge_arguments,
            folder.space,
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
        rated=rated,
        held_out=held_out,
        calibration=calibration_clips(args),
        before=before,
    )
    trainer.train(resume_from_checkpoint=resume_point(args))
    trainer.finish()
    trainer.save_state()
    return trainer


def train_preference(judge_arguments: JudgeArguments, args: PreferenceConfig) -> PreferenceTrainer:
    """Train stage 3 and write the judge to `output_dir`; the work of `gtsvj train-preference`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    folder = LatentFolder(args.latents)
    pairs = compared_clips(args.comparisons, folder, args)
    if args.held_out_comparisons is None:
        pairs, held_out = split_pairs(pairs, args.held_out_fraction, args.seed)
    else:
        held_out = compared_clips(args.held_out_comparisons, folder, args)
        check_apart(clips_of(pairs), clips_of(held_out))
    judge = judge_of_stage_before(judge_arguments, args)
    before = earlier_training(judge.config)
    warn_of_reuse(str(args.from_judge), pairs, held_out)
    judge.start_preference()
    trainer = PreferenceTrainer(
        judge,
        args,
        pairs=pairs,
        held_out=held_out,
        calibration=calibration_clips(args),
        before=before,
    )
    trainer.train(resume_from_checkpoint=resume_point(args))
    trainer.finish()
    trainer.save_state()
    return trainer


def judge_of_stage_before(arguments: JudgeArguments, args: RewardStageConfig) -> VideoJudge:
    """The judge of `from_judge`, which brings its own backbone settings.

    Raises:
        ValueError: for backbone settings given beside it.
    """
    own = ("base_model", "head_width", "token_pooling")
    changed = [
        item.name
        for item in fields(JudgeArguments)
        if item.name not in own and getattr(arguments, item.name) != item.default
    ]
    if changed:
        raise ValueError(f"{changed} come from the judge of `from_judge`: leave them out")
    folder = resolve_checkpoint(str(args.from_judge))
    return load_judge(folder, base_model=arguments.base_model or None)


def calibration_clips(args: RewardStageConfig) -> tuple[list[ClipInfo], str] | None:
    """Clips of the folder `calibration`, and its name; None without one."""
    if args.calibration is None:
        return None
    return LatentFolder(args.calibration).infos, Path(args.calibration).name


def warn_of_reuse(judge: str, pairs: Sequence[ClipPair], held_out: Sequence[ClipPair]) -> None:
    """Warn if pairs have clips whose aspect labels stage 2 has seen, with counts.

    The aspects of such clips are fitted to their labels' noise, so that their comparisons teach
    less, and held-out figures look better than they are.
    """
    file = resolve_checkpoint(judge) / CLIPS_FILE
    if not file.is_file():
        logger.warning(
            "%s has no %s: it cannot be checked whether pairs have clips that stage 2 was "
            "trained on",
            judge,
            CLIPS_FILE,
        )
        return
    seen = set(json.loads(file.read_text()))
    for name, part in (("training", pairs), ("held-out", held_out)):
        clips = clips_of(part)
        known = {str(info.path) for info in clips if clip_identity(info) in seen}
        count = sum(str(p.first.path) in known or str(p.second.path) in known for p in part)
        if count:
            logger.warning(
                "%d of %d %s pairs have clips whose aspect labels stage 2 has seen (%d of %d "
                "clips): use other clips, or the third stage fits the second one's training noise",
                count,
                len(part),
                name,
                len(known),
                len(clips),
            )
