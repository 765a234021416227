"""What the trainers of stages 2 and 3 share: statistics of the score, and the record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.files import write_text
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.training.labelled import clip_identity
from gtsvj_reward.training.trainer import JudgeTrainer

CLIPS_FILE = "labelled_clips.json"
"""Beside a judge: hashes of the clips that its stage was trained on or evaluated with."""


class RewardStageTrainer(JudgeTrainer):
    """Adds to `JudgeTrainer` how a stage with aspects ends.

    Attributes:
        calibration: clips over which the scale of the score is measured, and what they are.
        labelled: all clips that the stage has seen labels of.
        before: how earlier stages were trained, for the record.
    """

    calibration: tuple[Sequence[ClipInfo], str]
    labelled: Sequence[ClipInfo]
    before: dict[str, Any]

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
        self.save_model()
        if self.is_world_process_zero():
            hashes = sorted({clip_identity(info) for info in self.labelled})
            write_text(Path(self.args.output_dir) / CLIPS_FILE, json.dumps(hashes) + "\n")
        return metrics

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
                "measured; give more clips with `calibration`, or train longer"
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


def earlier_training(config: JudgeConfig) -> dict[str, Any]:
    """The training record of the stages before, each entry under the name of its stage."""
    return {
        name if ": " in name else f"{config.stage}: {name}": value
        for name, value in config.training.items()
    }
