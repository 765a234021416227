"""From comparisons and latents to a judge on disk; the work of `gtsvj train-preference`."""

import json
import logging
import math
from collections.abc import Sequence

from transformers import set_seed

from gtsvj_reward.files import file_sha256
from gtsvj_reward.judge import resolve_checkpoint
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.labelled import (
    CLIPS_FILE,
    calibration_clips,
    earlier_training,
    judge_of_stage_before,
)
from gtsvj_reward.training.preference.data import ClipPair, clips_of
from gtsvj_reward.training.preference.labels import compared_clips
from gtsvj_reward.training.preference.settings import ComparisonsData, PreferenceConfig
from gtsvj_reward.training.preference.trainer import PreferenceTrainer
from gtsvj_reward.training.splits import hold_out, video_keys

logger = logging.getLogger(__name__)


def train_preference(judge_arguments: JudgeArguments, args: PreferenceConfig) -> PreferenceTrainer:
    """Train stage 3 and write the judge to `output_dir`; the work of `gtsvj train-preference`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    pairs, held_out = compared_and_held_out(args)
    judge = judge_of_stage_before(judge_arguments, args)
    before = earlier_training(judge.config)
    warn_of_reuse(str(args.from_judge), pairs, held_out)
    judge.start_preference()
    trainer = PreferenceTrainer(
        judge,
        args,
        train_dataset=pairs,
        eval_dataset=held_out,
        calibration=calibration_clips(args),
        before=before,
    )
    trainer.run()
    return trainer


def compared_and_held_out(args: ComparisonsData) -> tuple[list[ClipPair], list[ClipPair]]:
    """Pairs to train on and pairs held out, with no clip on both sides."""
    folder = LatentFolder(args.latents)
    pairs = compared_clips(args.comparisons, folder, args)
    given = None
    if args.held_out_comparisons is not None:
        given = compared_clips(args.held_out_comparisons, folder, args)
    return hold_out(
        pairs,
        given,
        lambda pair: [pair.first, pair.second],
        count=math.ceil(args.held_out_fraction * len(pairs)),
        args=args,
        setting="held_out_comparisons",
        group=lambda pair: pair.group,
    )


def warn_of_reuse(judge: str, pairs: Sequence[ClipPair], held_out: Sequence[ClipPair]) -> None:
    """Warn if pairs have clips whose aspect labels stage 2 has seen, with counts.

    The aspects of such clips are fitted to their labels' noise, so that their comparisons help
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
        known = {str(info.path) for info in clips if not seen.isdisjoint(known_as(info))}
        count = sum(str(p.first.path) in known or str(p.second.path) in known for p in part)
        if count:
            logger.warning(
                "%d of %d %s pairs have clips whose aspect labels stage 2 has seen (%d of %d "
                "clips): use other clips, or stage 3 fits the training noise of stage 2",
                count,
                len(part),
                name,
                len(known),
                len(clips),
            )


def known_as(info: ClipInfo) -> set[str]:
    """What a clip may be called in `CLIPS_FILE`; older files have the hash of the file itself."""
    return {*video_keys(info), info.source_sha256 or file_sha256(info.path)}
