"""Stage 2: aspect scores by regression (paper section 4.2)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.latents.content import content_key
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.losses import aspect_loss
from gtsvj_reward.metrics import pearson, spearman
from gtsvj_reward.training.aspects.data import (
    RatedClip,
    RatedClips,
    collate_rated,
    normalised_targets,
)
from gtsvj_reward.training.aspects.settings import AspectConfig
from gtsvj_reward.training.labelled import LabelledTrainer, check_stage
from gtsvj_reward.training.outputs import mean_aspects


class AspectTrainer(LabelledTrainer):
    """Trains a judge of stage `aspects`: adapter and aspect head, squared error.

    The prediction for a clip is the mean over time of its steps' predictions. Missing labels are
    masked.

    Logged: `loss`, `grad_norm`, `mse/<aspect>` (of training examples, range-normalised), and per
    evaluation `eval_mse/<aspect>`, `eval_spearman/<aspect>`, `eval_pearson/<aspect>` (left out
    where predictions or labels are constant), their means `eval_mse`, `eval_spearman`,
    `eval_pearson`, and `eval_correlated_aspects`, the number of aspects in those means.

    Args:
        judge: of stage `aspects`, fresh from `VideoJudge.start_aspects` or from a bare backbone.
        args: settings.
        train_dataset: clips to train on.
        eval_dataset: clips to evaluate on.
        calibration: clips over which the scale of the score is measured, and their name; the
            held-out clips by default.
        before: how earlier stages were trained, for the record.
        callbacks: further callbacks.

    Raises:
        ValueError: for a judge of another stage, labels outside their scale, foreign latents.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: AspectConfig,
        *,
        train_dataset: Sequence[RatedClip],
        eval_dataset: Sequence[RatedClip],
        calibration: tuple[Sequence[ClipInfo], str] | None = None,
        before: Mapping[str, Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        check_stage(judge, "aspects")
        self.aspects = judge.config.aspects
        self.held_out_targets = normalised_targets(eval_dataset, self.aspects)
        ranges = torch.tensor([aspect.high - aspect.low for aspect in self.aspects])
        self.weights = ranges**2 if args.target_scale == "raw" else None
        super().__init__(
            judge,
            args,
            parts=("adapter", "head"),
            train_dataset=RatedClips(
                train_dataset, self.aspects, truncation=args.truncation(), seed=args.seed
            ),
            eval_dataset=eval_dataset,
            trained=[clip.info for clip in train_dataset],
            evaluated=[clip.info for clip in eval_dataset],
            collate=collate_rated,
            calibration=calibration,
            before=before,
            callbacks=callbacks,
        )

    def mean_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Mean squared error over the labels of a batch."""
        outputs = model(inputs["clips"])
        predicted, target = mean_aspects(outputs), inputs["target"]
        mask = ~target.isnan()
        weights = None if self.weights is None else self.weights.to(predicted)
        loss = aspect_loss(predicted, target, mask, weights=weights, reduction="mean")
        self.remember_errors(predicted.detach(), target)
        return loss

    def trained_on(self) -> Any:
        """Clips, their labels, and what of."""
        data: RatedClips = self.train_dataset
        keys = [content_key(clip.info) for clip in data.clips]
        return [keys, data.targets.tolist(), [asdict(aspect) for aspect in self.aspects]]

    def terms(self, inputs: dict[str, Any]) -> int:
        """The labels of a batch."""
        return int((~inputs["target"].isnan()).sum())

    def remember_errors(self, predicted: Tensor, target: Tensor) -> None:
        """Add squared errors to the running means of the next log entry."""
        errors = (predicted - target).square().tolist()
        for row in errors:
            for aspect, error in zip(self.aspects, row, strict=True):
                if not math.isnan(error):  # NaN: no label
                    self.remember(f"mse/{aspect.name}", error)

    def held_out_metrics(self) -> dict[str, float]:
        """Error and correlations of each aspect over the held-out clips."""
        _, aspects = self.predict_clips([clip.info for clip in self.eval_dataset])
        predicted = torch.tensor(list(aspects.values()))  # (clip, aspect)
        return aspect_metrics(
            predicted, self.held_out_targets, [aspect.name for aspect in self.aspects], self.weights
        )

    def record(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What `config.json` and the model card say about the run."""
        args: AspectConfig = self.args
        return {
            "objective": f"squared error of aspects, targets on the {args.target_scale} scale",
            "rated clips": len(self.train_dataset),
            "held-out clips": len(self.eval_dataset),
            **self.run_record(),
            "held-out spearman": picked(metrics, "eval_spearman/"),
            "held-out squared error, range-normalised": picked(metrics, "eval_mse/"),
        }


def aspect_metrics(
    predicted: Tensor,
    targets: Tensor,
    names: Sequence[str],
    weights: Tensor | None = None,
) -> dict[str, float]:
    """Squared error and correlations of range-normalised aspects (clip, aspect).

    Args:
        predicted: by the judge.
        targets: labels; NaN where there is none.
        names: of the aspects.
        weights: of the squared errors in `loss`.

    Returns:
        `loss` as in training, `mse/<aspect>`, `spearman/<aspect>`, `pearson/<aspect>`, and the
        means `mse`, `spearman`, `pearson` over the aspects that have them. A correlation needs
        three labels, and neither side constant.
    """
    metrics: dict[str, float] = {}
    for column, name in enumerate(names):
        labelled = ~targets[:, column].isnan()
        first, second = predicted[labelled, column], targets[labelled, column]
        metrics[f"mse/{name}"] = (first - second).square().mean().item()
        if len(first) >= 3 and len(first.unique()) > 1 and len(second.unique()) > 1:
            metrics[f"spearman/{name}"] = spearman(first, second)
            metrics[f"pearson/{name}"] = pearson(first, second)
    loss = aspect_loss(predicted, targets, ~targets.isnan(), weights=weights, reduction="mean")
    summary = {"loss": loss.item()}
    for kind in ("mse", "spearman", "pearson"):
        values = list(picked(metrics, f"{kind}/", digits=None).values())
        if values:
            summary[kind] = sum(values) / len(values)
    correlated = len(picked(metrics, "spearman/"))
    return {**summary, **metrics, "correlated_aspects": correlated}


def picked(
    metrics: Mapping[str, float], prefix: str, *, digits: int | None = 4
) -> dict[str, float]:
    """Metrics whose name begins with the prefix, under the rest of it."""
    found = {n.removeprefix(prefix): v for n, v in metrics.items() if n.startswith(prefix)}
    return found if digits is None else {name: round(v, digits) for name, v in found.items()}
