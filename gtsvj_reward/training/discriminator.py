"""Stage 1: the energy judge, trained with the contrastive loss on `transformers.Trainer`."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl

from gtsvj_reward.judge import VideoJudge, save_judge
from gtsvj_reward.judge.checkpoint import load_trained_weights
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.losses import bound_share, contrastive_bound, contrastive_loss
from gtsvj_reward.perturbations import GENERATED
from gtsvj_reward.training.arguments import DiscriminatorConfig
from gtsvj_reward.training.callbacks import SaturationWatch
from gtsvj_reward.training.data import (
    ContrastivePairs,
    EpochKeys,
    Truncation,
    check_lengths,
    collate,
    trained_geometry,
)
from gtsvj_reward.training.energies import PairEnergies, means
from gtsvj_reward.training.held_out import REAL, held_out_energies, metrics_by_kind

logger = logging.getLogger(__name__)


class DiscriminatorTrainer(Trainer):
    """Trains a judge to give real clips low energy and all others high energy (Eq. 4).

    Checkpoints hold config, adapter and head, not the base weights, beside Trainer's own resume
    files. A resumed run repeats the uninterrupted one, since every draw is keyed.

    Logged: `loss`, `bound_share` (share of -1/(2 beta) reached), `grad_norm`, `energy/<kind>` (mean
    training energy of reals, generated clips and each perturbation), and per evaluation
    `eval_accuracy/<kind>` (held-out share of pairs in which the real clip has the lower energy),
    `eval_energy/<kind>`, `eval_pairs` and `eval_ties`.

    Args:
        judge: a fresh or loaded judge; adapter and head are trained.
        args: data settings, objective and optimisation.
        real: clips to train on.
        generated: generated clips to train on, possibly none.
        held_out_real: clips to evaluate on.
        held_out_generated: generated clips to evaluate on.
        callbacks: further callbacks.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: DiscriminatorConfig,
        *,
        real: Sequence[ClipInfo],
        generated: Sequence[ClipInfo] = (),
        held_out_real: Sequence[ClipInfo],
        held_out_generated: Sequence[ClipInfo] = (),
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        for info in (*real, *generated, *held_out_real, *held_out_generated):
            if not info.space.same_latents(judge.config.latent_space):
                raise ValueError(
                    f"{info.path} is of latent space {info.space.id!r}, the judge of "
                    f"{judge.config.latent_space.id!r}: encode the clips with the judge's VAE"
                )
        check_lengths([*held_out_real, *held_out_generated])
        truncation = Truncation(
            args.truncation_probability, args.truncation_min_seconds, args.truncation_max_seconds
        )
        self.pairs = ContrastivePairs(
            real, generated, sampler=args.sampler(), truncation=truncation, seed=args.seed
        )
        self.keys = EpochKeys(len(self.pairs), args.seed, lambda: int(self.state.epoch or 0))
        self.held_out = (list(held_out_real), list(held_out_generated))
        self.saturation = SaturationWatch(args.saturation_share)
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        self.used = self.pairs.sampler.probabilities(bool(generated))
        judge.unfreeze()
        judge.config = replace(
            judge.config, geometry=trained_geometry([*real, *generated], truncation)
        )
        self.optimizer: torch.optim.Optimizer | None
        self.control: TrainerControl
        super().__init__(
            model=PairEnergies(judge),
            args=args,
            data_collator=collate,
            train_dataset=self.pairs,
            eval_dataset=self.held_out[0],
            callbacks=[self.saturation, *(callbacks or [])],
        )
        batch = args.train_batch_size * args.world_size
        if len(self.pairs) < batch and args.dataloader_drop_last:
            raise ValueError(
                f"{len(self.pairs)} real clips do not fill one batch of {batch}: lower "
                "`per_device_train_batch_size`"
            )
        if not generated:
            logger.warning(
                "no generated clips: the real column of Table A.1 is renormalised to %s", self.used
            )

    @property
    def judge(self) -> VideoJudge:
        """The judge in training, out of any wrapper."""
        judge: VideoJudge = self.accelerator.unwrap_model(self.model).judge
        return judge

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.keys

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with one learning rate for the adapter and one for the head."""
        if self.optimizer is None:
            named = [(n, p) for n, p in self.judge.named_parameters() if p.requires_grad]
            head = [parameter for name, parameter in named if name.startswith("head.")]
            adapter = [parameter for name, parameter in named if not name.startswith("head.")]
            groups = [{"params": head, "lr": self.args.head_learning_rate}]
            if adapter:
                groups.append({"params": adapter, "lr": self.args.learning_rate})
            self.optimizer = torch.optim.AdamW(
                groups,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                weight_decay=self.args.weight_decay,
            )
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean contrastive loss of a batch of pairs."""
        positives, negatives = inputs["positive"], inputs["negative"]
        energies = model(positives + negatives)
        first, second = energies[: len(positives)], energies[len(positives) :]
        beta = self.args.beta
        if self.args.loss_per_step:
            losses = [
                contrastive_loss(a[None], b[None], beta)[0]
                for a, b in zip(first, second, strict=True)
            ]
            loss = torch.stack(losses).mean()
        else:
            loss = contrastive_loss(means(first), means(second), beta).mean()
        self.remember(means(first), means(second), inputs["kind"], inputs["anchor"])
        return (loss, {"energies": energies}) if return_outputs else loss

    def remember(self, first: Tensor, second: Tensor, kinds: list[str], anchors: list[str]) -> None:
        """Add energies to the running means of the next log entry."""
        energies = torch.cat([first, second]).detach().float().tolist()
        names = [REAL if anchor == "real" else GENERATED for anchor in anchors] + kinds
        for name, energy in zip(names, energies, strict=True):
            self.sums[name][0] += energy
            self.sums[name][1] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the share of the bound and the mean energies since the last entry."""
        if "loss" in logs:
            logs["bound_share"] = bound_share(float(logs["loss"]), self.args.beta)
            rows = gather_object([(name, *pair) for name, pair in self.sums.items()])
            self.sums.clear()
            totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            for name, energy, count in rows:
                totals[name][0] += energy
                totals[name][1] += count
            for name, (energy, count) in sorted(totals.items()):
                logs[f"energy/{name}"] = energy / count
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Held-out energies per kind and pairwise accuracy of real clips against each kind."""
        del eval_dataset, ignore_keys
        return self.report(self.held_out_by_kind(), metric_key_prefix)

    def report(
        self, by_kind: dict[str, dict[int, float]], prefix: str = "eval"
    ) -> dict[str, float]:
        """Log the metrics of held-out energies and tell the callbacks."""
        metrics = {
            f"{prefix}_{name}": value
            for name, value in metrics_by_kind(by_kind, self.args.beta).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def held_out_by_kind(self) -> dict[str, dict[int, float]]:
        """Energies of the held-out clips, kind -> clip -> energy, gathered from all processes."""
        judge, state = self.judge, self.model.training
        self.model.eval()
        shard = (self.args.process_index, self.args.world_size)
        rows = list(
            held_out_energies(
                judge, *self.held_out, self.pairs.sampler, device=self.args.device, shard=shard
            )
        )
        self.model.train(state)
        by_kind: dict[str, dict[int, float]] = defaultdict(dict)
        for kind, index, energy in sorted(gather_object(rows)):
            by_kind[kind][index] = energy
        return by_kind

    def finish(self) -> dict[str, float]:
        """Measure the scale of scores on the held-out clips, record the run, save the judge.

        Returns:
            The metrics of a last evaluation.
        """
        by_kind = self.held_out_by_kind()
        metrics = self.report(by_kind)
        scores = torch.tensor([-e for energies in by_kind.values() for e in energies.values()])
        counts = ", ".join(f"{len(energies)} {kind}" for kind, energies in sorted(by_kind.items()))
        self.judge.config = replace(
            self.judge.config,
            reward_mean=scores.double().mean().item(),
            reward_std=scores.double().std().item(),
            reward_data=f"held-out clips of stage 1 ({counts})",
            training=self.record(metrics),
        )
        self.save_model()
        return metrics

    def record(self, metrics: dict[str, float]) -> dict[str, Any]:
        """What `config.json` and the model card say about the run."""
        args = self.args
        return {
            "objective": f"contrastive, beta {args.beta}, bound {contrastive_bound(args.beta)}",
            "real clips": len(self.pairs.real),
            "generated clips": len(self.pairs.generated),
            "negatives": {kind: round(share, 6) for kind, share in self.used.items()},
            "truncation probability": args.truncation_probability,
            "steps": self.state.global_step,
            "pairs per step": args.train_batch_size
            * args.gradient_accumulation_steps
            * args.world_size,
            "learning rates (adapter, head)": [args.learning_rate, args.head_learning_rate],
            "seed": args.seed,
            "saturated at step": self.saturation.step,
            "held-out accuracy": {
                name.removeprefix("eval_accuracy/"): round(value, 4)
                for name, value in metrics.items()
                if name.startswith("eval_accuracy/")
            },
        }

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the judge's own checkpoint format instead of a state dict of everything."""
        del state_dict
        save_judge(self.judge, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Fill adapter and head from a checkpoint of this trainer."""
        del model
        load_trained_weights(self.judge, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_trained_weights(self.judge, Path(self.state.best_model_checkpoint))
