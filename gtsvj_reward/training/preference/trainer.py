"""Stage 3: one score from the aspects by paired comparisons (paper section 4.2)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.judge.stages import Part
from gtsvj_reward.latents.content import content_key
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.losses import (
    bradley_terry_loss,
    bradley_terry_with_ties_loss,
    expected_loss,
    rao_kupper_loss,
)
from gtsvj_reward.metrics import (
    accuracy_with_ties,
    accuracy_without_ties,
    cross_fitted_accuracy_with_ties,
)
from gtsvj_reward.training.labelled import LabelledTrainer, check_stage
from gtsvj_reward.training.outputs import mean_scores
from gtsvj_reward.training.preference.data import (
    ClipPair,
    ClipPairs,
    clips_of,
    collate_pairs,
    shares_of,
)
from gtsvj_reward.training.preference.settings import ComparisonsData, PreferenceConfig
from gtsvj_reward.training.splits import deal_folds

logger = logging.getLogger(__name__)


class PreferenceTrainer(LabelledTrainer):
    """Trains a judge of stage `preference`: the linear layer and the adapter, or the layer alone.

    Logged: `loss`, `grad_norm`, `accuracy` (share of untied training pairs scored in the right
    order), and per evaluation `eval_loss`, `eval_accuracy_without_ties`,
    `eval_cross_fitted_with_ties` (held-out pairs in up to ten folds, each answered at the tie
    threshold of the others; left out where all pairs are connected through shared clips),
    `eval_accuracy_with_ties` (in-sample, so too high) with its fitted threshold, `eval_pairs` and
    `eval_human_ties`.

    Args:
        judge: of stage `preference`, fresh from `VideoJudge.start_preference`.
        args: settings.
        train_dataset: pairs to train on.
        eval_dataset: pairs to evaluate on.
        calibration: clips over which the scale of the score is measured, and their name; the
            held-out clips by default.
        before: how earlier stages were trained, for the record.
        callbacks: further callbacks.

    Raises:
        ValueError: for a judge of another stage, ties with a loss that cannot use them, foreign
            latents.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: PreferenceConfig,
        *,
        train_dataset: Sequence[ClipPair],
        eval_dataset: Sequence[ClipPair],
        calibration: tuple[Sequence[ClipInfo], str] | None = None,
        before: Mapping[str, Any] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        check_stage(judge, "preference")
        pairs = trainable(train_dataset, args)
        self.ties_dropped = len(train_dataset) - len(pairs)
        if not any(pair.label for pair in eval_dataset):
            raise ValueError(
                f"all {len(eval_dataset)} held-out pairs are ties: hold out more pairs"
            )
        parts: list[Part] = ["preference"]
        if not args.head_only:
            parts.append("adapter")
        if args.train_aspect_head:
            parts.append("head")
        super().__init__(
            judge,
            args,
            parts=parts,
            train_dataset=ClipPairs(pairs, truncation=args.truncation(), seed=args.seed),
            eval_dataset=eval_dataset,
            trained=clips_of(pairs),
            evaluated=clips_of(eval_dataset),
            collate=collate_pairs,
            calibration=calibration,
            before=before,
            callbacks=callbacks,
        )

    def mean_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Mean negative log-likelihood of a batch of comparisons, each times its weight."""
        outputs = model(inputs["first"] + inputs["second"])
        scores, labels = mean_scores(outputs), inputs["label"]
        first, second = scores[: len(labels)], scores[len(labels) :]
        loss = preference_loss(first, second, inputs["shares"], self.args).mean()
        for difference, label in zip((first - second).tolist(), labels.tolist(), strict=True):
            if label:
                self.remember("accuracy", float(difference * label > 0))
        return loss

    def trained_on(self) -> Any:
        """Both clips of each pair, and its label."""
        pairs: Sequence[ClipPair] = self.train_dataset.pairs
        return [
            (
                *(content_key(pair.first), content_key(pair.second), pair.label),
                # Runs with labels alone are the same as before there were others.
                *(() if pair.probability is None else (pair.probability,)),
                *(() if pair.weight == 1 else (f"weight {pair.weight}",)),
            )
            for pair in pairs
        ]

    def terms(self, inputs: dict[str, Any]) -> int:
        """The pairs of a batch."""
        return len(inputs["label"])

    def held_out_metrics(self) -> dict[str, float]:
        """Loss and accuracies over the held-out pairs."""
        infos = clips_of(self.eval_dataset)
        scores, _ = self.predict_clips(infos)
        by_path = {str(infos[index].path): score for index, score in scores.items()}
        return pair_metrics(self.eval_dataset, by_path, self.args)

    def record(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What `config.json` and the model card say about the run."""
        args: PreferenceConfig = self.args
        settings = {
            "bradley_terry": "",
            "bradley_terry_with_ties": f", gamma {args.gamma:g}",
            "rao_kupper": f", threshold {args.tie_threshold:g}",
        }
        return {
            "objective": args.preference_loss + settings[args.preference_loss],
            "pairs": len(self.train_dataset),
            "tied pairs left out": self.ties_dropped,
            "held-out pairs": len(self.eval_dataset),
            "trained": "linear layer"
            + ("" if args.head_only else ", adapter")
            + (", aspect head" if args.train_aspect_head else ""),
            **self.run_record(),
            "held-out": {
                name.removeprefix("eval_"): round(value, 4) for name, value in metrics.items()
            },
        }


def trainable(pairs: Sequence[ClipPair], args: ComparisonsData) -> list[ClipPair]:
    """The pairs to train on: without ties if they are to be dropped.

    Raises:
        ValueError: for ties with a loss that cannot use them.
    """
    kept = [pair for pair in pairs if not (pair.tied and args.drop_ties)]
    ties = sum(pair.tied for pair in kept)
    if ties and args.preference_loss == "bradley_terry":
        raise ValueError(
            f"{ties} pairs are ties, which the Bradley-Terry loss cannot use: choose "
            "`preference_loss` rao_kupper or bradley_terry_with_ties, or set `drop_ties`"
        )
    return kept


def pair_metrics(
    pairs: Sequence[ClipPair], scores: Mapping[str, float], args: ComparisonsData
) -> dict[str, float]:
    """Loss and accuracies of pairs, from the scores of their clips by path."""
    first = torch.tensor([scores[str(pair.first.path)] for pair in pairs])
    second = torch.tensor([scores[str(pair.second.path)] for pair in pairs])
    labels = torch.tensor([pair.label for pair in pairs])
    with_ties = accuracy_with_ties(first - second, labels)
    folds = torch.tensor(
        deal_folds(pairs, lambda pair: (pair.first, pair.second), args, lambda pair: pair.group)
    )
    cross_fitted = {}
    if len(folds.unique()) > 1:
        found = cross_fitted_accuracy_with_ties(first - second, labels, folds)
        cross_fitted["cross_fitted_with_ties"] = found.accuracy
    else:
        logger.warning(
            "all %d held-out pairs are connected through shared clips: no accuracy with ties at a "
            "threshold of other pairs, and that at their own is too high",
            len(pairs),
        )
    shares = shares_of(pairs)
    counted = torch.ones_like(labels, dtype=torch.bool)
    if args.preference_loss == "bradley_terry":
        counted = shares[:, 1] == 0
    loss = preference_loss(first[counted], second[counted], shares[counted], args).sum()
    return {
        "loss": loss.item() / shares[counted].sum().item(),
        "accuracy_without_ties": accuracy_without_ties(first - second, labels).accuracy,
        **cross_fitted,
        "accuracy_with_ties": with_ties.accuracy,
        "tie_threshold": with_ties.threshold or 0.0,
        "pairs": with_ties.pairs,
        "human_ties": with_ties.human_ties,
    }


def preference_loss(
    first: Tensor, second: Tensor, labels: Tensor, args: ComparisonsData
) -> Float[Tensor, " pair"]:
    """Loss of each pair by the setting `preference_loss`.

    Args:
        first: scores of the first clips.
        second: scores of the second clips.
        labels: of pairs (+1, 0, -1), or shares of their outcomes (pair, 3).
        args: the setting, and what its loss needs.
    """

    def loss(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        if args.preference_loss == "bradley_terry":
            return bradley_terry_loss(first, second, labels)
        if args.preference_loss == "rao_kupper":
            return rao_kupper_loss(first, second, labels, args.tie_threshold)
        return bradley_terry_with_ties_loss(first, second, labels, args.gamma)

    if labels.is_floating_point():
        return expected_loss(loss, first, second, labels)
    return loss(first, second, labels)
