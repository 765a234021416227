"""What the alignment algorithms share: set-up, checkups, logs, checkpoints, several processes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.guards import Checkup, Guards, trajectory_variance
from gtsvj_reward.alignment.journal import Journal
from gtsvj_reward.alignment.policy import Policy, Prompts, decoded
from gtsvj_reward.alignment.rollout import Key, Rollout, batches, rollout
from gtsvj_reward.alignment.state import (
    latest_checkpoint,
    load_checkpoint,
    load_moments,
    save_checkpoint,
)
from gtsvj_reward.alignment.transition import Latents, add_noise, standard_normal
from gtsvj_reward.losses import denoising_error
from gtsvj_reward.plotting import plot_alignment, plot_film_strips
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward import AnyReward, Clips
from gtsvj_reward.sampling.scoring import Scoring

Gold = Callable[[Latents, Sequence[str]], Float[Tensor, " clip"]]
"""(clean latents without padding, prompts) -> one number per clip, higher being better."""

Metrics = Mapping[str, float | Float[Tensor, "..."]]
"""Name -> a number, or numbers of several clips."""

TRAINING, EVALUATION = 0, 1
"""Second number of a clip's key, after the seed: iterations and checkups share no noise."""
LATEST, SOUND = "lora", "lora-sound"
"""Folders of adapters for diffusers: of the last checkpoint, and of the last checkup at which the
guards saw no divergence."""
NOISE = 2
"""Last number of the key of noise that is added to a finished clip."""


class AlignmentRun:
    """A policy in training, with everything around its objective.

    A script is a loop over `iterations()`: it samples, asks for `scores`, calls `backward` and
    `update`, and hands its numbers to `finish`, which logs, checks up, draws and saves. The same
    command goes on after an interruption, and repeats bitwise what an uninterrupted run would have
    done, since every random number is a function of (seed, iteration, clip).

    Under `accelerate launch` each process makes its share of the clips, and gradients are averaged.

    Args:
        arguments: of the run.
        policy: on the accelerator's device.
        reward: what is trained on.
        golds: measures that are only watched, by name.
        prompts: to draw from.
        accelerator: of this process.
        extra: objects with `state()` and `load(state)` that belong into checkpoints, by name.

    Raises:
        ValueError: if the clips of an iteration cannot be shared evenly, or the folder holds a run
            with other settings.
    """

    def __init__(
        self,
        arguments: AlignArguments,
        policy: Policy,
        reward: AnyReward,
        *,
        golds: Mapping[str, Gold],
        prompts: Sequence[str],
        accelerator: Accelerator,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.arguments = arguments
        self.policy = policy
        self.reward = reward
        self.scoring = Scoring(
            reward=reward,
            space=policy.space,
            num_frames=arguments.num_frames,
            fps=arguments.fps,
            text=None,
            normalize=True,
        )
        self.golds = dict(golds)
        self.prompts = list(prompts)
        self.accelerator = accelerator
        self.extra = dict(extra or {})
        self.guards = Guards(patience=arguments.guard_patience, looks=arguments.looks)
        self.parameters = policy.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
        )
        self.done = 0
        self.stopped: str | None = None
        self.journal = Journal(arguments.folder, writes=self.main)
        check_share(self.clips_in_all, accelerator.num_processes, "clips of an iteration")
        policy.encode(self.prompts)
        check_share(arguments.evaluation_clips, accelerator.num_processes, "`evaluation_clips`")
        self.resume()

    @property
    def clips_in_all(self) -> int:
        """Clips of an iteration, of all processes."""
        return self.arguments.prompts_per_iteration * self.arguments.clips_per_prompt

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return bool(self.accelerator.is_main_process)

    def iterations(self) -> Iterator[int]:
        """Iterations that are left, from 0; begins with a checkup if there was none yet.

        The text encoder leaves the device: encode prompts that the run does not know before.
        """
        self.policy.release_text_encoder()
        if not self.guards.checkups:
            self.check_up()
        bar = tqdm(
            total=self.arguments.iterations, initial=self.done, disable=not self.main, unit="it"
        )
        with bar:
            while self.done < self.arguments.iterations and self.stopped is None:
                yield self.done
                bar.update()
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def clips(self, iteration: int) -> tuple[list[str], list[Key]]:
        """Prompts and keys of this process's clips; clips of one prompt are neighbours."""
        texts = self.prompts_of_all(iteration)
        keys: list[Key] = [
            (self.arguments.seed, TRAINING, iteration, index) for index in range(len(texts))
        ]
        share = self.share(len(texts))
        return texts[share], keys[share]

    def prompts_of_all(self, iteration: int) -> list[str]:
        """Prompts of the clips of all processes."""
        generator = keyed_generator(self.arguments.seed, iteration)
        drawn = torch.randperm(len(self.prompts), generator=generator)
        chosen = drawn[: self.arguments.prompts_per_iteration].tolist()
        return [self.prompts[i] for i in chosen for _ in range(self.arguments.clips_per_prompt)]

    def share(self, count: int) -> slice:
        """This process's part of `count` things."""
        size = count // self.accelerator.num_processes
        first = size * self.accelerator.process_index
        return slice(first, first + size)

    def rollouts(self, texts: Sequence[str], keys: Sequence[Key], *, eta: float) -> list[Rollout]:
        """Clips of prompts, made in batches of `batch_size`, in the order of the prompts."""
        return [
            rollout(
                self.policy,
                self.policy.encode(texts[part]),
                keys[part],
                steps=self.arguments.num_inference_steps,
                eta=eta,
            )
            for part in batches(len(texts), self.arguments.batch_size)
        ]

    def scores(self, latents: Latents) -> Float[Tensor, " clip"]:
        """The reward of clean latents as the policy makes them; differentiable if recorded."""
        return self.scoring.scores(latents)

    def unpadded(self, latents: Latents) -> Latents:
        """Without the padding of CogVideoX 1.5."""
        return self.policy.space.unpad(latents, self.arguments.num_frames)

    def gather(self, values: Float[Tensor, "clip ..."]) -> Float[Tensor, "all_clips ..."]:
        """Of all processes, in the order of the clips."""
        gathered: Tensor = self.accelerator.gather(values)
        return gathered

    def backward(self, loss: Tensor) -> None:
        """Add gradients of a loss that is already divided as it should be."""
        if not loss.isfinite():
            raise ValueError(
                f"the loss of iteration {self.done} is {loss.item()}: lower `learning_rate`, or "
                "look at the rewards of the last iterations in metrics.jsonl"
            )
        # Not accelerate's own, which divides by the accumulation that its configuration names.
        loss.backward()

    def update(self) -> float:
        """One step of the optimizer with gradients averaged over processes; their norm.

        Raises:
            ValueError: if no gradient arrived, or one that is not finite.
        """
        self.average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(
            self.parameters.values(), self.arguments.max_grad_norm
        ).item()
        if not 0 < norm < float("inf"):
            raise ValueError(
                f"the gradient's norm in iteration {self.done} is {norm}: "
                + ("no loss depends on the policy" if norm == 0 else "training has diverged")
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def average_gradients(self) -> None:
        """Mean over processes, in one message."""
        if self.accelerator.num_processes == 1:
            return
        held = list(self.parameters.values())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in grads]), "mean")
        for parameter, part in zip(held, flat.split([p.numel() for p in held]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def drift(
        self, latents: Latents, prompts: Prompts, keys: Sequence[Key]
    ) -> Float[Tensor, " clip"]:
        """How far the policy's predictions are from the reference's; differentiable if recorded.

        Mean squared difference at one noise level, the middle of the schedule, on noised clips of
        the policy's own. As a loss it holds the policy to the reference whatever the algorithm.

        Args:
            latents: clean, with padding; no gradient flows into them.
            prompts: one per clip.
            keys: one per clip, for the noise.
        """
        policy = self.policy
        timestep = policy.scheduler.config.num_train_timesteps // 2
        generators = [keyed_generator(*key, NOISE) for key in keys]
        noise = standard_normal(policy.latent_shape, generators, latents.device)
        noisy, _ = add_noise(policy.scheduler, latents.detach(), noise, timestep)
        with policy.reference():
            wanted = policy.predict(noisy, timestep, prompts, guided=False)
        return denoising_error(policy.predict(noisy, timestep, prompts, guided=False), wanted)

    def finish(self, metrics: Sequence[Metrics]) -> None:
        """End an iteration: log its numbers, check up and save where that is due.

        Args:
            metrics: of parts of the iteration, whatever the parts; the same names in every process.
                The mean of all numbers of a name, of all processes, is logged.
        """
        self.done += 1
        self.record({"iteration": self.done, **self.means(metrics)})
        last = self.done == self.arguments.iterations
        if last or self.done % self.arguments.evaluate_every == 0:
            self.check_up()
        if last or self.stopped or self.done % self.arguments.save_every == 0:
            self.save()

    def means(self, metrics: Sequence[Metrics]) -> dict[str, float]:
        """Mean of all numbers of each name, of all processes."""
        found: dict[str, list[Tensor]] = {}
        for entry in metrics:
            for name, values in entry.items():
                found.setdefault(name, []).append(
                    torch.as_tensor(values, dtype=torch.float32).flatten()
                )
        device = self.accelerator.device
        gathered = {name: torch.cat([v.to(device) for v in parts]) for name, parts in found.items()}
        # (name, 2): sum and count
        sums = torch.tensor([[v.sum().item(), len(v)] for v in gathered.values()], device=device)
        totals = self.accelerator.reduce(sums, "sum")
        return dict(zip(found, (totals[:, 0] / totals[:, 1]).tolist(), strict=True))

    def record(self, entry: dict[str, float]) -> None:
        """Add an entry to the journal, and to accelerate's trackers."""
        self.journal.add(entry)
        self.accelerator.log(entry, step=int(entry["iteration"]))

    def check_up(self) -> None:
        """Sample the fixed prompts and seeds, measure reward and golds, draw, let guards look."""
        texts, latents = self.evaluation_clips()
        checkup = self.measure(latents, texts)
        verdict = self.guards.look(checkup)
        self.record({"iteration": self.done, **checkup.metrics()})
        for alarm in verdict.alarms:
            self.say(f"iteration {self.done}: {alarm}")
        if self.main and not verdict.diverged:
            self.policy.save(self.arguments.folder / SOUND)
        if verdict.stop:
            self.stopped = verdict.alarms[0]
            self.say(
                f"stopped after iteration {self.done}; {SOUND} holds the adapter from before, "
                "`guard_patience` 0 would go on"
            )
        if self.main:
            self.draw(latents, texts, checkup)

    def evaluation_clips(self) -> tuple[list[str], Latents]:
        """Prompts and clean latents of this process's share of a checkup, without padding."""
        count = self.arguments.evaluation_clips
        share = range(count)[self.share(count)]
        texts = [self.prompts[index % len(self.prompts)] for index in share]
        keys: list[Key] = [(self.arguments.seed, EVALUATION, index) for index in share]
        made = self.rollouts(texts, keys, eta=0.0)
        return texts, self.unpadded(torch.cat([batch.clean for batch in made]))

    @torch.no_grad()
    def measure(self, latents: Latents, texts: Sequence[str]) -> Checkup:
        """Reward, golds and roughness of clips, in batches, gathered from all processes."""
        proxy, roughness = [], []
        golds: dict[str, list[Tensor]] = {name: [] for name in self.golds}
        for part in batches(len(texts), self.arguments.batch_size):
            clips = latents[part]
            output = self.scoring.details(clips)
            proxy.append(output.rewards)
            if output.trajectory:
                roughness.append(trajectory_variance(output.trajectory))
            for name, gold in self.golds.items():
                found = gold(clips, texts[part])
                golds[name].append(Clips(latents=clips).scored(found, name).to(clips.device))
        return Checkup(
            iteration=self.done,
            proxy=self.gather(torch.cat(proxy)).cpu(),
            golds={name: self.gather(torch.cat(parts)).cpu() for name, parts in golds.items()},
            roughness=self.gather(torch.cat(roughness)).cpu() if roughness else None,
        )

    def draw(self, latents: Latents, texts: Sequence[str], checkup: Checkup) -> None:
        """Film strips of the first clips, and the curves so far."""
        folder = self.arguments.folder
        shown = min(self.arguments.samples, len(texts))
        if shown:
            plot_film_strips(
                [decoded(self.policy, clip) for clip in latents[:shown]],
                labels=list(texts[:shown]),
                scores=checkup.proxy[:shown].tolist(),
                score_name="reward",
                title=f"after {self.done} iterations",
                path=folder / "samples" / f"iteration-{self.done:06d}.png",
            )
        if len(self.guards.checkups) > 1:
            plot_alignment(self.journal.entries, path=folder / "curves.png")

    def say(self, text: str) -> None:
        """A line for a person, once."""
        if self.main:
            tqdm.write(text, file=sys.stderr)

    def save(self) -> None:
        """Write a checkpoint, and the adapter for diffusers."""
        if self.main:
            folder = self.arguments.folder
            self.policy.save(folder / LATEST)
            save_checkpoint(
                folder / "checkpoints",
                self.done,
                adapter=self.policy.adapter(),
                parameters=self.parameters,
                optimizer=self.optimizer,
                state={
                    "settings": self.arguments.fingerprint(),
                    "guards": self.guards.state(),
                    "stopped": self.stopped,
                    "extra": {name: part.state() for name, part in self.extra.items()},
                },
            )
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if the folder has one.

        Raises:
            ValueError: if it is of a run with other settings.
        """
        path = latest_checkpoint(self.arguments.folder / "checkpoints")
        if path is None:
            self.journal.rewind(0)
            return
        adapter, moments, state = load_checkpoint(path)
        if state["settings"] != self.arguments.fingerprint():
            raise ValueError(
                f"{self.arguments.folder} holds a run with other settings: choose another "
                "`output_dir`, or give the settings of that run"
            )
        self.policy.load_adapter(adapter)
        load_moments(self.optimizer, self.parameters, moments)
        self.guards.load(state["guards"])
        for name, part in self.extra.items():
            part.load(state["extra"][name])
        self.done = int(state["iteration"])
        self.stopped = state["stopped"] if self.arguments.guard_patience else None
        self.journal.rewind(self.done)
        self.say(f"going on after iteration {self.done}")


def check_share(count: int, processes: int, what: str) -> None:
    """Refuse what processes cannot share evenly.

    Raises:
        ValueError: with the numbers.
    """
    if count % processes:
        raise ValueError(f"{processes} processes cannot share {count} {what} evenly")
