"""Shared base of the trainers of all three stages."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback

from gtsvj_reward.judge import JudgeConfig, JudgeSettings, VideoJudge, judge_clips
from gtsvj_reward.judge.stages import Part, refuse_moments
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.training.arguments import (
    JudgeTrainingConfig,
    deciding_settings,
    default_settings,
)
from gtsvj_reward.training.checkpoints import CheckpointTrainer
from gtsvj_reward.training.data import EpochKeys, trained_geometry, trained_statistics
from gtsvj_reward.training.how_long import HowLong
from gtsvj_reward.training.outputs import ClipScores
from gtsvj_reward.training.refused import refuse_sharded_weights, refuse_sharding

STEADY = ("constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau")
"""Schedules of the learning rate that do not depend on how many steps there will be."""

BUILT = (
    *(
        item.name
        for item in fields(JudgeSettings)
        if item.name not in ("base_model", "base_revision")
    ),
    "stage",
    "base_fingerprint",
    "time_pooling",
    "energy_width",
    "text_input",
)
"""Fields of a judge's config that say what is trained."""


class JudgeTrainer(CheckpointTrainer):
    """A `transformers.Trainer` of a judge: adapter and head, never the base weights.

    A resumed run repeats the uninterrupted one, since every draw is keyed by (seed, epoch, index).
    The loss of a step is the mean over all terms of its batches, of all processes, however they are
    cut.

    Args:
        judge: what is trained.
        args: settings.
        parts: which parts of the judge are trained.
        train_dataset: examples, the same at each `[epoch * len(train_dataset) + index]`.
        eval_dataset: what the stage evaluates on.
        trained: the clips of `train_dataset`.
        evaluated: the clips of `eval_dataset`.
        collate: makes a batch of examples.
        callbacks: further callbacks.

    Raises:
        ValueError: for clips of another latent space than the judge's, fewer examples than a batch,
            a shortest or smallest clip of which the judge would see too little, or weights that are
            to be sharded.
    """

    def __init__(
        self,
        judge: VideoJudge,
        args: JudgeTrainingConfig,
        *,
        parts: Collection[Part],
        train_dataset: Any,
        eval_dataset: Any,
        trained: Sequence[ClipInfo],
        evaluated: Sequence[ClipInfo],
        collate: Any,
        callbacks: Sequence[TrainerCallback],
    ) -> None:
        refuse_sharding(args)
        refuse_sharded_weights(judge)
        self.check_readout(judge.config)
        check_space(judge, [*trained, *evaluated])
        geometry, length = trained_geometry(trained, args.truncation()), len(train_dataset)
        batch = args.train_batch_size * args.world_size
        if length < batch and args.dataloader_drop_last:
            raise ValueError(
                f"{length} examples do not fill one batch of {batch}: lower "
                "`per_device_train_batch_size`"
            )
        judge.check_size((geometry.latent_frames[0], geometry.height[0], geometry.width[0]))
        self.keys = EpochKeys(length, args.seed, lambda: int(self.state.epoch or 0))
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        judge.unfreeze(parts)
        judge.config = replace(
            judge.config, geometry=geometry, latent_statistics=trained_statistics(trained)
        )
        self.optimizer: torch.optim.Optimizer | None
        super().__init__(
            model=ClipScores(judge),
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=[*callbacks, HowLong()],
        )

    def check_readout(self, config: JudgeConfig) -> None:
        """Refuse a readout that this stage does not train.

        Raises:
            ValueError: for moments, which are solved in closed form.
        """
        refuse_moments(config)

    loss_is_scaled_for_ga = True  # transformers 5; `ClipScores.accepts_loss_kwargs` in 4

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.keys

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """That of `optim`, with a learning rate for the adapter, one for head and preference."""
        if self.optimizer is None:
            named = [(n, p) for n, p in self.judge.named_parameters() if p.requires_grad]
            adapter = [parameter for name, parameter in named if name.startswith("backbone.")]
            head = [parameter for name, parameter in named if not name.startswith("backbone.")]
            rates = [(head, self.args.head_learning_rate), (adapter, self.args.learning_rate)]
            groups = [
                {"params": parameters, "lr": rate, "weight_decay": self.args.weight_decay}
                for parameters, rate in rates
                if parameters
            ]
            factory, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = factory(groups, **settings)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The batches of one step of this process, and the terms of the loss of all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        terms = torch.tensor(sum(self.terms(batch) for batch in batches), device=device)
        return batches, self.accelerator.gather(terms).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """What a batch adds to the loss of its step; without a step, its own mean loss.

        Gradients, and the logged loss, are averaged over processes after this.
        """
        loss = self.mean_loss(model, inputs)
        if num_items_in_batch is not None:
            loss = loss * (self.terms(inputs) * self.args.world_size / num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def mean_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Mean over the terms of a batch; remembers what is logged."""
        raise NotImplementedError

    def terms(self, inputs: dict[str, Any]) -> int:
        """How many terms the loss of a batch is the mean of."""
        raise NotImplementedError

    def remember(self, name: str, value: float) -> None:
        """Add a value to a running mean of the next log entry."""
        self.sums[name][0] += value
        self.sums[name][1] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the running means since the last entry, over all processes."""
        if "loss" in logs:
            rows = gather_object([(name, *pair) for name, pair in self.sums.items()])
            self.sums.clear()
            totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            for name, total, count in rows:
                totals[name][0] += total
                totals[name][1] += count
            for name, (total, count) in sorted(totals.items()):
                logs[name] = total / count
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Metrics of the held-out clips."""
        del eval_dataset, ignore_keys
        return self.report(self.held_out_metrics(), metric_key_prefix)

    def trained_on(self) -> Any:
        """The training examples in their order, by content, with labels; for JSON."""
        raise NotImplementedError

    def resume_settings(self) -> dict[str, Any]:
        """What decides the weights after each step, besides the base model's."""
        examples = json.dumps(self.trained_on()).encode()
        judge, together = self.judge.config, self.args.train_batch_size * self.args.world_size
        rate = {"steps of warm-up": self.args.get_warmup_steps(self.total_steps())}
        if str(self.args.lr_scheduler_type.value) not in STEADY:
            rate["max_steps"] = self.total_steps()
        return {
            **deciding_settings(self.args),
            **rate,
            "examples per step": self.examples_per_step,
            "examples of an epoch": min(
                len(self.train_dataset), self.batches_per_epoch() * together
            ),
            "training examples": hashlib.sha256(examples).hexdigest(),
            **{name: getattr(judge, name) for name in BUILT},
        }

    def resume_defaults(self) -> dict[str, Any]:
        """Defaults of those settings that have one."""
        return default_settings(type(self.args)) | {
            item.name: item.default
            for item in fields(JudgeConfig)
            if item.name in BUILT and item.default is not MISSING
        }

    def held_out_metrics(self) -> dict[str, float]:
        """Metrics of the held-out clips, by name."""
        raise NotImplementedError

    def report(self, metrics: Mapping[str, float], prefix: str = "eval") -> dict[str, float]:
        """Log metrics and tell the callbacks."""
        named = {f"{prefix}_{name}": value for name, value in metrics.items()}
        self.log(named)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    @contextmanager
    def evaluating(self) -> Iterator[VideoJudge]:
        """The judge in evaluation mode, without gradients."""
        state = self.model.training
        self.model.eval()
        with torch.no_grad():
            yield self.judge
        self.model.train(state)

    def predict_clips(
        self, infos: Sequence[ClipInfo]
    ) -> tuple[dict[int, float], dict[int, list[float]]]:
        """Mean score and mean range-normalised aspects of whole clips, by index.

        Each process scores its share; all get all.
        """
        rows = []
        with self.evaluating() as judge:
            for index in range(self.args.process_index, len(infos), self.args.world_size):
                latents = load_clip(infos[index].path).latents.to(self.args.device)
                (output,) = judge_clips(judge, [latents])
                aspects = [] if output.aspects is None else output.aspects.mean(dim=0).tolist()
                rows.append((index, output.scores.mean().item(), aspects))
        gathered = sorted(gather_object(rows))
        scores = {index: score for index, score, _ in gathered}
        return scores, {index: aspects for index, _, aspects in gathered}

    def run_record(self) -> dict[str, Any]:
        """What every stage records of its run for `config.json` and the model card."""
        args = self.args
        return {
            "steps": self.state.global_step,
            "examples per step": self.examples_per_step,
            "learning rates (adapter, head)": [args.learning_rate, args.head_learning_rate],
            "truncation probability": args.truncation_probability,
            "seed": args.seed,
        }


def check_space(judge: VideoJudge, infos: Sequence[ClipInfo]) -> None:
    """Refuse clips of another latent space than the judge's."""
    for info in infos:
        if not info.space.same_latents(judge.config.latent_space):
            raise ValueError(
                f"{info.path} is of latent space {info.space.id!r}, the judge of "
                f"{judge.config.latent_space.id!r}: encode the clips with the judge's VAE"
            )
