"""Stage 1: the energy judge, trained with the contrastive loss on `transformers.Trainer`."""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback

from gtsvj_reward.judge import JudgeConfig, JudgeOutput, VideoJudge, judge_clips
from gtsvj_reward.latents.content import content_key
from gtsvj_reward.losses import bound_share, contrastive_bound, contrastive_loss
from gtsvj_reward.perturbations import GENERATED
from gtsvj_reward.training.discriminator.data import ContrastivePairs, RealAndGenerated, collate
from gtsvj_reward.training.discriminator.held_out import REAL, held_out_energies, metrics_by_kind
from gtsvj_reward.training.discriminator.saturation import SaturationWatch
from gtsvj_reward.training.discriminator.settings import DiscriminatorConfig
from gtsvj_reward.training.trainer import JudgeTrainer

logger = logging.getLogger(__name__)


class DiscriminatorTrainer(JudgeTrainer):
    """Trains a judge to give real clips low energy and all others high energy (Eq. 4).

    Checkpoints hold config, adapter and head, not the base weights, beside Trainer's own resume
    files. A resumed run repeats the uninterrupted one, since every draw is keyed.

    Logged: `loss`, `bound_share` (share of -1/(2 beta) reached), `grad_norm`, `energy/<kind>` (mean
    training energy of reals, generated clips and each perturbation), and per evaluation
    `eval_loss` (that of training, on pairs of held-out clips), `eval_accuracy/<kind>` (share of
    pairs in which the real clip has the lower energy), `eval_energy/<kind>`, `eval_pairs` and
    `eval_ties`.

    Args:
        judge: a fresh or loaded judge; adapter and head are trained. With `readout="moments"` it
            must have LoRA.
        args: data settings, objective and optimisation.
        train_dataset: clips to train on.
        eval_dataset: clips to evaluate on.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: DiscriminatorConfig,
        *,
        train_dataset: RealAndGenerated,
        eval_dataset: RealAndGenerated,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        trained, evaluated = (
            ContrastivePairs(
                clips, sampler=args.sampler(), truncation=args.truncation(), seed=args.seed
            )
            for clips in (train_dataset, eval_dataset)
        )
        self.saturation = SaturationWatch(args.saturation_share)
        self.used = trained.sampler.probabilities(bool(trained.generated))
        super().__init__(
            judge,
            args,
            parts=("adapter", "head"),
            train_dataset=trained,
            eval_dataset=evaluated,
            trained=[*trained.real, *trained.generated],
            evaluated=[*evaluated.real, *evaluated.generated],
            collate=collate,
            callbacks=[self.saturation, *callbacks],
        )
        if not trained.generated:
            logger.warning(
                "no generated clips: the real column of Table A.1 is renormalised to %s", self.used
            )

    def check_readout(self, config: JudgeConfig) -> None:
        """See `JudgeTrainer.check_readout`; LoRA on moments is trained here."""
        if not config.lora_rank:
            super().check_readout(config)

    def mean_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Mean contrastive loss of a batch of pairs."""
        outputs = model(inputs["positive"] + inputs["negative"])
        first, second = pair_energies(outputs)
        self.remember_energies(means(first), means(second), inputs["kind"], inputs["anchor"])
        return pair_losses(first, second, self.args).mean()

    def trained_on(self) -> Any:
        """Real and generated clips, and what negatives are made of."""
        data: ContrastivePairs = self.train_dataset
        clips = [[content_key(info) for info in side] for side in (data.real, data.generated)]
        return [*clips, data.sampler.to_dict()]

    def terms(self, inputs: dict[str, Any]) -> int:
        """The pairs of a batch."""
        return len(inputs["positive"])

    def remember_energies(
        self, first: Tensor, second: Tensor, kinds: list[str], anchors: list[str]
    ) -> None:
        """Add energies to the running means of the next log entry."""
        energies = torch.cat([first, second]).detach().float().tolist()
        names = [REAL if anchor == "real" else GENERATED for anchor in anchors] + kinds
        for name, energy in zip(names, energies, strict=True):
            self.remember(f"energy/{name}", energy)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of the bound and the mean energies since the last entry."""
        if "loss" in logs:
            logs["bound_share"] = bound_share(float(logs["loss"]), self.args.beta)
        super().log(logs, start_time)

    def held_out_metrics(self) -> dict[str, float]:
        """Loss of the held-out pairs; energies per kind and accuracy of real clips against each."""
        return {"loss": self.held_out_loss(), **metrics_by_kind(self.held_out_by_kind())}

    def held_out_loss(self) -> float:
        """The training loss over one epoch of held-out pairs, which are always the same."""
        keys = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        rows = []
        with self.evaluating() as judge:
            for pair in map(self.eval_dataset.__getitem__, keys):
                clips = [clip.to(self.args.device) for clip in (pair.positive, pair.negative)]
                sides = pair_energies(judge_clips(judge, clips))
                rows.append(pair_losses(*sides, self.args).item())
        losses = gather_object(rows)
        return math.fsum(losses) / len(losses)

    def held_out_by_kind(self) -> dict[str, dict[int, float]]:
        """Energies of the held-out clips, kind -> clip -> energy, gathered from all processes."""
        device = self.args.device
        shard = (self.args.process_index, self.args.world_size)
        with self.evaluating() as judge:
            rows = list(
                held_out_energies(
                    judge,
                    self.eval_dataset.real,
                    self.eval_dataset.generated,
                    self.eval_dataset.sampler,
                    device=device,
                    shard=shard,
                    shown=self.args.local_process_index == 0 and not self.args.disable_tqdm,
                )
            )
        by_kind: dict[str, dict[int, float]] = defaultdict(dict)
        for kind, index, energy in sorted(gather_object(rows)):
            by_kind[kind][index] = energy
        return by_kind

    def finish(self) -> dict[str, float]:
        """Measure the scale of scores on the held-out clips, record the run, save the judge.

        Returns:
            The metrics of a last evaluation.
        """
        self.saturation.replay(self.state)
        by_kind = self.held_out_by_kind()
        metrics = self.report({"loss": self.held_out_loss(), **metrics_by_kind(by_kind)})
        scores = torch.tensor([-e for energies in by_kind.values() for e in energies.values()])
        counts = ", ".join(f"{len(energies)} {kind}" for kind, energies in sorted(by_kind.items()))
        self.judge.config = replace(
            self.judge.config,
            reward_mean=scores.double().mean().item(),
            reward_std=scores.double().std().item(),
            reward_data=f"held-out clips of stage 1 ({counts})",
            training={**self.judge.config.training, **self.record(metrics)},
        )
        self.save_model()
        return metrics

    def record(self, metrics: dict[str, float]) -> dict[str, Any]:
        """What `config.json` and the model card say about the run."""
        args = self.args
        return {
            "objective": f"contrastive, beta {args.beta}, bound {contrastive_bound(args.beta)}",
            "real clips": len(self.train_dataset.real),
            "generated clips": len(self.train_dataset.generated),
            "negatives": {kind: round(share, 6) for kind, share in self.used.items()},
            **self.run_record(),
            "saturated at step": self.saturation.step,
            "held-out accuracy": {
                name.removeprefix("eval_accuracy/"): round(value, 4)
                for name, value in metrics.items()
                if name.startswith("eval_accuracy/")
            },
        }


def pair_energies(outputs: Sequence[JudgeOutput]) -> tuple[list[Tensor], list[Tensor]]:
    """Energies (step,) of positives and of negatives, which come after them."""
    energies = [-output.scores for output in outputs]
    return energies[: len(energies) // 2], energies[len(energies) // 2 :]


def pair_losses(
    first: Sequence[Tensor], second: Sequence[Tensor], args: DiscriminatorConfig
) -> Tensor:
    """Loss of each pair (pair,) of a positive and a negative clip."""
    if not args.loss_per_step:
        return contrastive_loss(means(first), means(second), args.beta)
    pairs = zip(first, second, strict=True)
    return torch.stack([contrastive_loss(a[None], b[None], args.beta)[0] for a, b in pairs])


def means(energies: Sequence[Tensor]) -> Tensor:
    """Mean energy over time of clips that may differ in length."""
    return torch.stack([energy.mean() for energy in energies])
