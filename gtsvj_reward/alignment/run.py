"""The loop that the alignment algorithms share: clips, updates, checkups, logs, checkpoints."""

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.alignment.average import AdapterAverage
from gtsvj_reward.alignment.checkpoints import Checkpoints, Stateful
from gtsvj_reward.alignment.evaluation import EvalMetric, Evaluation
from gtsvj_reward.alignment.guards import Guards
from gtsvj_reward.alignment.journal import Journal, latest
from gtsvj_reward.alignment.processes import Metrics, average_gradients, check_share, mean_metrics
from gtsvj_reward.alignment.refits import Refits
from gtsvj_reward.alignment.rewards import judges_of, refuse_images
from gtsvj_reward.alignment.sampler import Sampler
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.alignment.updates import check_loss, clip_gradients
from gtsvj_reward.judge.checkpoint import trained_digest
from gtsvj_reward.progress import Progress
from gtsvj_reward.reward import AnyReward
from gtsvj_reward.sampling.scoring import Scoring
from gtsvj_reward.training.processes import from_main

SOUND = "lora-sound"
"""Folder of the adapter of the last checkup at which the guards saw no divergence."""


class AlignmentRun:
    """The training loop around an objective: sampling, updates, checkups, logs, checkpoints.

    A script loops over `iterations()`: it samples, computes `scores`, calls `backward` and
    `update`, and passes its metrics to `finish`, which logs, runs checkups, draws and saves. The
    same command resumes an interrupted run. Every random number is a function of (seed, iteration,
    clip), so a resumed run equals an uninterrupted one bitwise.

    Under `accelerate launch` each process samples its share of the clips; gradients are averaged.

    Args:
        sampler: of the policy, on the accelerator's device.
        reward: the training reward.
        eval_metrics: metrics that are not trained on, by name.
        extra: objects whose state checkpoints store, by name.
        refits: refits the reward during training; None: it stays fixed.

    Raises:
        ValueError: for a judge that reads reference images, clips of an iteration that cannot be
            shared evenly, or a folder that holds a run with other settings.
    """

    def __init__(
        self,
        sampler: Sampler,
        reward: AnyReward,
        *,
        eval_metrics: Mapping[str, EvalMetric],
        extra: Mapping[str, Stateful] | None = None,
        refits: Refits | None = None,
    ) -> None:
        arguments, policy, accelerator = sampler.arguments, sampler.policy, sampler.accelerator
        for name, judge in judges_of(reward).items():
            refuse_images(judge.config, f"the judge of `reward` ({name})")
        check_share(arguments.clips, accelerator.num_processes, "clips of an iteration")
        check_share(arguments.evaluation_clips, accelerator.num_processes, "`evaluation_clips`")
        self.arguments = arguments
        self.policy = policy
        self.sampler = sampler
        self.accelerator = accelerator
        self.refits = refits
        self.evaluation = Evaluation(
            sampler,
            Scoring(
                reward=reward,
                space=policy.space,
                num_frames=arguments.num_frames,
                fps=arguments.fps,
            ),
            dict(eval_metrics),
        )
        self.guards = Guards(patience=arguments.guard_patience, looks=arguments.looks)
        self.parameters = policy.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
        )
        decay = arguments.ema_decay
        self.average = AdapterAverage(self.parameters, decay) if decay else None
        self.journal = Journal(arguments.folder, writes=self.main)
        self.checkpoints = Checkpoints(
            arguments.folder,
            arguments.decisive() | named_content(sampler.prompts, reward),
            policy,
            self.optimizer,
            self.guards,
            dict(extra or {}) | ({} if refits is None else {"refits": refits}),
            self.average,
        )
        policy.encode(sampler.prompts)
        self.done, stopped = self.checkpoints.restore()
        self.stopped = stopped if arguments.guard_patience else None
        self.journal.rewind(self.done, refit=self.owed_refits() is not None)
        if refits is not None and refits.done:
            self.use(refits.reward())
        if self.done:
            self.say(self.resumption())

    @property
    def reward(self) -> AnyReward:
        """The current training reward."""
        return self.evaluation.scoring.reward

    @property
    def refitted(self) -> bool:
        """Whether a refit followed the last iteration: older rewards are of another judge."""
        return self.refits is not None and self.refits.done[-1:] == [self.done]

    def owed_refits(self) -> Refits | None:
        """The refits, if one has to follow the last iteration and has not yet."""
        if self.refits is None or self.done == 0 or self.stopped or self.refitted:
            return None
        return self.refits if self.refits.due(self.done) else None

    def use(self, reward: AnyReward) -> None:
        """Replace the training reward."""
        scoring = replace(self.evaluation.scoring, reward=reward)
        self.evaluation = replace(self.evaluation, scoring=scoring)

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    def resumption(self) -> str:
        """What a run does that has been here before."""
        if self.stopped is not None:
            return (
                f"nothing to do: the guards stopped the run after iteration {self.done} "
                f"({self.stopped}); `guard_patience` 0 goes on"
            )
        if self.done >= self.arguments.iterations and self.owed_refits() is None:
            return (
                f"nothing to do: the run has made its {self.done} `iterations`. Give more to go "
                "on; new labels are read at the next refit"
            )
        return f"going on after iteration {self.done}"

    def iterations(self) -> Iterator[int]:
        """Remaining iterations, from 0; starts with a checkup if there was none, or an owed refit.

        Moves the text encoder to the CPU: encode other prompts than the run's before.
        """
        self.policy.release_text_encoder()
        every, began = self.arguments.evaluate_every, time.monotonic()
        if not self.guards.checkups:
            self.check_up()
        later = self.arguments.iterations // every if every > 2 else 0  # else they are timed too
        others = later * (time.monotonic() - began)
        bar = Progress(
            self.arguments.iterations, "align", shown=self.main, initial=self.done, besides=others
        )
        bar.set_postfix(latest(self.journal.entries), refresh=False)
        self.refit()
        with bar:
            while self.done < self.arguments.iterations and self.stopped is None:
                yield self.done
                bar.set_postfix(latest(self.journal.entries), refresh=False)
                bar.update()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def scores(
        self,
        latents: Latents,
        texts: Sequence[str] | None = None,
        *,
        unfinished: bool = False,
    ) -> Float[Tensor, " clip"]:
        """Rewards of the policy's clean latents; differentiable if gradients are on.

        Args:
            latents: of some clips.
            texts: their prompts, required by rewards that read prompts.
            unfinished: whether they are predictions from the middle of sampling.

        Raises:
            ValueError: for another number of prompts than of clips.
        """
        if texts is not None and len(texts) != len(latents):
            raise ValueError(f"got {len(texts)} prompts for {len(latents)} clips")
        return self.evaluation.scoring_of(texts).scores(latents, unfinished=unfinished)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; the caller has divided it already."""
        check_loss(loss, f"iteration {self.done}")
        # Not accelerate's method, which divides by its configured gradient accumulation.
        loss.backward()

    def update(self) -> float:
        """One optimizer step with gradients averaged over processes; returns their norm.

        Raises:
            ValueError: if no gradient arrived, or one that is not finite.
        """
        average_gradients(self.accelerator, self.parameters.values())
        norm = clip_gradients(
            self.parameters.values(), self.arguments.max_grad_norm, f"iteration {self.done}"
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        return norm

    def finish(self, metrics: Sequence[Metrics]) -> None:
        """End an iteration: log its metrics, and run a checkup, save and refit when due.

        It saves before a refit, too, so that an error in the refit loses no iteration.

        Args:
            metrics: of any parts of the iteration, with the same names in every process. The mean
                over all numbers of a name and all processes is logged.
        """
        self.done += 1
        self.record({"iteration": self.done, **mean_metrics(self.accelerator, metrics)})
        last = self.done == self.arguments.iterations
        if last or self.done % self.arguments.evaluate_every == 0:
            self.check_up()
        owed = self.owed_refits() is not None
        if last or self.stopped or owed or self.done % self.arguments.save_every == 0:
            self.save()
        self.refit()

    def save(self) -> None:
        """Write a checkpoint."""
        from_main(lambda: self.checkpoints.save(self.done, self.stopped))

    def refit(self) -> None:
        """Refit the reward if that is owed, run a checkup with it, and save."""
        refits, began = self.owed_refits(), time.monotonic()
        if refits is None:
            return
        known = refits.refit(self.done)
        # Not in the journal, which a resumed run repeats to the bit.
        seconds = time.monotonic() - began
        self.record({"iteration": self.done, **known})
        self.use(refits.reward())
        self.say(f"iteration {self.done}: the judge was refitted in {seconds:.1f} s, {known}")
        self.check_up()
        self.save()

    def record(self, entry: dict[str, float]) -> None:
        """Add an entry to the journal, and to accelerate's trackers."""
        self.journal.add(entry)
        self.accelerator.log(entry, step=int(entry["iteration"]))

    def check_up(self) -> None:
        """Sample the fixed prompts and seeds, measure, run the guards, draw.

        With `ema_decay` it uses the average of the adapter.
        """
        with self.average.in_place() if self.average else nullcontext():
            texts, latents = self.evaluation.clips()
            refits = 0 if self.refits is None else len(self.refits.done)
            checkup = self.evaluation.measure(latents, texts, self.done, refits)
            report = self.guards.look(checkup)
            if self.main and not report.diverged:
                self.policy.save(self.arguments.folder / SOUND)
        self.record({"iteration": self.done, **checkup.metrics()})
        for alarm in report.alarms:
            self.say(f"iteration {self.done}: {alarm}")
        if report.stop:
            self.stopped = report.alarms[0]
            self.say(
                f"stopped after iteration {self.done}; {SOUND} holds the adapter from before, "
                "`guard_patience` 0 would go on"
            )
        if self.main:
            self.evaluation.draw(latents, texts, checkup, self.journal.entries)

    def say(self, text: str) -> None:
        """Print a line, from the main process only."""
        if self.main:
            tqdm.write(text, file=sys.stderr)


def named_content(prompts: Sequence[str], reward: AnyReward) -> dict[str, str]:
    """Hashes of what settings only name, and what decides the iterations, too."""
    found = {"prompts": hashlib.sha256("\n".join(prompts).encode()).hexdigest()}
    for name, judge in judges_of(reward).items():
        found[f"weights of {name}"] = trained_digest(judge.judge)
    return found
