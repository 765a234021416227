"""What stages 2 and 3 share: labels, the judge of the stage before, the scale of the score."""

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainerCallback

from gtsvj_reward.assets import lasting_name
from gtsvj_reward.files import write_text
from gtsvj_reward.flags import documented
from gtsvj_reward.judge import JudgeConfig, VideoJudge, load_judge, read_config, resolve_checkpoint
from gtsvj_reward.judge.checkpoint import base_beside
from gtsvj_reward.judge.seen import write_trained
from gtsvj_reward.judge.settings import Stage
from gtsvj_reward.judge.stages import Part
from gtsvj_reward.latents.store import ClipInfo, LatentFolder, unique_clips
from gtsvj_reward.training.arguments import (
    FitConfig,
    JudgeArguments,
    JudgeTrainingConfig,
    SplitSettings,
)
from gtsvj_reward.training.splits import video_keys
from gtsvj_reward.training.trainer import JudgeTrainer

logger = logging.getLogger(__name__)

CLIPS_FILE = "labelled_clips.json"
"""Beside a judge: hashes of the clips that its stage was trained on or evaluated with."""

STAGES: list[Stage] = ["discriminator", "aspects", "preference"]

Reader = TypeVar("Reader", bound=Callable[..., object])


@dataclass(kw_only=True)
class LabelledData(SplitSettings):
    """What stages 2 and 3 share: where they start, and where labels and clips are."""

    from_judge: str | None = None
    """Judge of the stage before: folder, bundled name or hub id. Its base model is loaded from
    where it says, or from `base_model`."""
    latents: str = ""
    """Folder of latent clips, which the labels refer to."""
    allow_missing_videos: bool = False
    """Train on the rest where labelled videos have no latents."""


@dataclass(kw_only=True)
class LabelledFit(LabelledData, FitConfig):
    """What the closed forms of stages 2 and 3 share."""


@documented
@dataclass(kw_only=True)
class LabelledConfig(LabelledData, JudgeTrainingConfig):
    """What the trainers of stages 2 and 3 share."""

    calibration: str | None = None
    """Folder of latent clips over which mean and standard deviation of the score are measured;
    the held-out clips by default."""


class LabelledTrainer(JudgeTrainer):
    """Adds to `JudgeTrainer` how a stage with aspects ends.

    Attributes:
        calibration: clips over which the scale of the score is measured, and what they are.
        labelled: the clips that the stage was trained on and evaluated with.
        before: how earlier stages were trained, for the record.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: LabelledConfig,
        *,
        trained: Sequence[ClipInfo],
        evaluated: Sequence[ClipInfo],
        calibration: tuple[Sequence[ClipInfo], str] | None,
        before: Mapping[str, Any] | None,
        parts: Collection[Part],
        train_dataset: Any,
        eval_dataset: Any,
        collate: Any,
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        own = (
            unique_clips(evaluated),
            f"held-out clips of stage {STAGES.index(judge.config.stage) + 1}",
        )
        self.calibration = calibration or own
        self.labelled = (trained, evaluated)
        self.before = dict(before or {})
        super().__init__(
            judge,
            args,
            parts=parts,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            trained=trained,
            evaluated=evaluated,
            collate=collate,
            callbacks=callbacks,
        )

    def finish(self) -> dict[str, float]:
        """Evaluate, measure the scale of scores, record the run, save the judge.

        Returns:
            The metrics of that last evaluation.
        """
        metrics = self.report(self.held_out_metrics())
        statistics = self.statistics()
        self.judge.config = replace(
            self.judge.config, **statistics, training={**self.record(metrics), **self.before}
        )
        if self.is_world_process_zero():
            write_labelled(Path(self.args.output_dir), *self.labelled)
        self.save_model()
        return metrics

    def resume_settings(self) -> dict[str, Any]:
        """Adds how the judge was trained before."""
        return {**super().resume_settings(), "stages before": self.before}

    def record(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What `config.json` and the model card say about the run."""
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """Mean and standard deviation of the score, means and covariances of the aspects.

        Raises:
            ValueError: if the score is the same for all calibration clips.
        """
        infos, name = self.calibration
        scores, aspects = self.predict_clips(infos)
        raw = torch.tensor(list(scores.values()), dtype=torch.float64)
        table = torch.tensor(list(aspects.values()), dtype=torch.float64)  # (clip, aspect)
        if len(raw) < 2 or not raw.std() > 0:
            raise ValueError(
                f"the score is the same for all {len(raw)} clips of {name}: its scale cannot be "
                "measured; give more clips with --calibration (`calibration`), or train longer"
            )
        centred = table - table.mean(dim=0)
        covariance = centred.T @ centred / (len(table) - 1)
        return {
            "reward_mean": raw.mean().item(),
            "reward_std": raw.std().item(),
            "reward_data": f"{name} ({len(raw)} clips)",
            "aspect_mean": tuple(table.mean(dim=0).tolist()),
            "aspect_covariance": tuple(tuple(row) for row in covariance.tolist()),
        }


def check_stage(judge: VideoJudge, stage: Stage) -> None:
    """Refuse a judge of another stage."""
    if judge.config.stage != stage:
        raise ValueError(
            f"expected a judge of stage {stage!r}, got {judge.config.stage!r}: "
            f"start it with `judge.start_{stage}(...)`"
        )


def write_labelled(
    folder: Path, trained: Sequence[ClipInfo], evaluated: Sequence[ClipInfo]
) -> None:
    """Write beside a judge which clips its stage has seen labels of, and was trained on."""
    hashes = sorted({key for info in (*trained, *evaluated) for key in video_keys(info)})
    write_text(folder / CLIPS_FILE, json.dumps(hashes) + "\n")
    write_trained(folder, trained)


def earlier_training(config: JudgeConfig) -> dict[str, Any]:
    """The training record of the stages before, each entry under the name of its stage."""
    return {
        name if ": " in name else f"{config.stage}: {name}": value
        for name, value in config.training.items()
    }


def judge_of_stage_before(arguments: JudgeArguments, args: LabelledData) -> VideoJudge:
    """The judge of `from_judge`, which brings its own backbone settings.

    Raises:
        ValueError: for backbone settings given beside it.
    """
    own = ("base_model", "readout", "head_width", "token_pooling")
    changed = [
        item.name
        for item in fields(JudgeArguments)
        if item.name not in own and getattr(arguments, item.name) != item.default
    ]
    if changed:
        raise ValueError(f"{changed} come from the judge of `from_judge`: leave them out")
    folder = resolve_checkpoint(str(args.from_judge))
    base = arguments.base_model or base_beside(folder, read_config(folder))
    judge = load_judge(folder, base_model=base)
    judge.config = replace(judge.config, base_model=lasting_name(base))
    return judge


def calibration_clips(args: LabelledConfig) -> tuple[list[ClipInfo], str] | None:
    """Clips of the folder `calibration`, and its name; None without one."""
    if args.calibration is None:
        return None
    return LatentFolder(args.calibration).infos, Path(args.calibration).name


def chosen_reader(readers: Mapping[str, Reader], name: str, setting: str) -> Reader:
    """The reader of a format.

    Raises:
        ValueError: for a name that is not in the table.
    """
    if name not in readers:
        raise ValueError(f"`{setting}` must be one of {list(readers)}, got {name!r}")
    return readers[name]


def report_left_out(path: str, kept: int, left_out: int, skipped: Mapping[str, int]) -> None:
    """Say how many rows and labels of a file are not used, and why.

    Raises:
        ValueError: if none is left.
    """
    if not kept:
        raise ValueError(f"no row of {path} is left: none of its videos has latents")
    if left_out:
        logger.warning("%s: %d rows without latents left out, %d kept", path, left_out, kept)
    for reason, count in skipped.items():
        logger.warning("%s: %d labels left out: %s", path, count, reason)
