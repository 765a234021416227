"""DDPO and GRPO: policy gradients through the log-probabilities of stochastic denoising steps.

    python examples/ddpo.py --output_dir runs/ddpo
    accelerate launch --num_processes 2 examples/ddpo.py --output_dir runs/ddpo

Each iteration samples clips, scores their latents, and moves the policy towards the steps of those
that did better than their prompt usually does (Black et al. 2024; PPO's clipped ratios). The steps
are those of DDIM, or for flows of the SDE that `--sde` names. Nothing is decoded, and the reward
needs no gradient.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from shared import make_run, parse

from gtsvj_reward.alignment import (
    AlignArguments,
    AlignmentRun,
    Metrics,
    PromptStatistics,
    Rollout,
    check_advantages,
    step_taken,
)
from gtsvj_reward.alignment.advantages import (
    best_and_worst,
    some_of,
    step_advantages,
    step_gains,
)
from gtsvj_reward.alignment.flow import PUBLISHED_ETA
from gtsvj_reward.alignment.steps import SUBSET, check_window, trained_steps, window
from gtsvj_reward.flags import documented
from gtsvj_reward.losses import clipped_policy_loss
from gtsvj_reward.reward import group_z_scores


@documented
@dataclass(kw_only=True)
class DDPOArguments(AlignArguments):
    """Settings of DDPO."""

    eta: float | None = None
    """Noise of the steps while training; by default 1 with ddim, 0.7 with flow-grpo, 0.3 with
    dance-grpo."""
    advantages: Literal["prompt", "group"] = "prompt"
    """prompt: by the latest rewards of each prompt (DDPO); group: by those of this iteration
    (GRPO)."""
    advantage_clip: float = 5.0
    """Advantages are cut to this."""
    epochs: int = 1
    """Passes over the clips of an iteration."""
    updates_per_epoch: int = 1
    """Steps of the optimizer in one."""
    clip_range: float = 1e-4
    """Clip range of the likelihood ratio."""
    kl_weight: float = 0.0
    """Weight of the divergence from the reference."""
    measure_kl: bool = True
    """Log the divergence without a weight too: a pass more per step."""
    window: int = 0
    """Successive steps that are stochastic and trained on, moving by one each iteration (MixGRPO);
    0: all."""
    timestep_fraction: float = 1.0
    """Share of the stochastic steps that an iteration trains on, at random."""
    keep_clips: int = 0
    """Train on this many clips of a prompt, half the best, half the worst."""
    dense_rewards: bool = False
    """Reward a step by what it adds to the score of the predicted clip, which is scored after each
    step; while sampling the predictions are kept beside the trajectories."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta is None:
            self.eta = PUBLISHED_ETA[self.sde]
        if min(self.epochs, self.updates_per_epoch) < 1:
            raise ValueError(
                "`epochs` and `updates_per_epoch` must be at least 1, got "
                f"{self.epochs} and {self.updates_per_epoch}"
            )
        if not self.eta > 0:
            raise ValueError(
                f"`eta` must be positive, got {self.eta}: without noise a step has no density"
            )
        check_window(self.num_inference_steps, self.window)
        if not 0 < self.timestep_fraction <= 1:
            raise ValueError(f"`timestep_fraction` must be in (0, 1], got {self.timestep_fraction}")
        if self.kl_weight and not self.measure_kl:
            raise ValueError("`kl_weight` needs the divergence: leave `measure_kl` on")
        if self.dense_rewards and self.advantages != "group":
            raise ValueError("`dense_rewards` are compared within an iteration: `advantages` group")
        if self.keep_clips and self.updates_per_epoch > 1:
            raise ValueError("`keep_clips` goes with one update per epoch (`updates_per_epoch`)")


def main(argv: list[str] | None = None) -> AlignmentRun:
    args = parse(DDPOArguments, argv)
    statistics = PromptStatistics()
    run = make_run(args, extra={"prompt_statistics": statistics})
    for iteration in run.iterations():
        run.finish(iterate(run, args, statistics, iteration))
    return run


def iterate(
    run: AlignmentRun, args: DDPOArguments, statistics: PromptStatistics, iteration: int
) -> list[Metrics]:
    """Sample, score, learn; what is worth logging."""
    if run.refitted:
        statistics.forget()
    count, (texts, keys) = args.updates_per_epoch, run.sampler.clips(iteration)
    if len(texts) % count:
        raise ValueError(
            f"{len(texts)} clips of a process cannot be spread evenly over {count} updates "
            "(`updates_per_epoch`)"
        )
    stochastic = window(iteration, args.num_inference_steps, args.window)
    # Every `count`-th clip belongs to the same update, however many processes there are.
    rollouts = [
        run.sampler.rollouts(
            texts[u::count],
            keys[u::count],
            eta=args.eta,
            stochastic=stochastic,
            predictions=args.dense_rewards,
        )
        for u in range(count)
    ]
    everything = gathered(run, [scores(run, part) for part in rollouts])
    prompts = run.sampler.prompts_of_all(iteration)
    advantages = advantages_of(run, args, statistics, rollouts, everything, prompts)
    if args.dense_rewards:  # scored by now, and as large as the trajectories
        rollouts = [[replace(batch, predictions=()) for batch in part] for part in rollouts]
    if not args.kl_weight:
        check_advantages(advantages, everything)
    own = run.sampler.share(advantages.clamp(-args.advantage_clip, args.advantage_clip))
    if args.keep_clips:
        rows = kept_rows(run, args, everything, prompts)
        rollouts, own = [some_of(run.policy, rollouts[0], rows)], own[rows]
    drawn = trained_steps(
        list(rollouts[0][0].log_probabilities), args.timestep_fraction, args.seed, SUBSET, iteration
    )
    metrics: list[Metrics] = [{"reward": everything}]
    for _ in range(args.epochs):
        for update, part in enumerate(rollouts):
            metrics += learn(run, args, part, own[update::count], drawn)
    return metrics


def gathered(run: AlignmentRun, parts: list[torch.Tensor]) -> torch.Tensor:
    """Data of each clip for the updates, from all processes in the order of the clips."""
    # (clip of the update, update), which is the order of the clips.
    return run.sampler.gather(torch.stack(parts, dim=1).flatten(0, 1))


def advantages_of(
    run: AlignmentRun,
    args: DDPOArguments,
    statistics: PromptStatistics,
    rollouts: list[list[Rollout]],
    rewards: torch.Tensor,
    prompts: list[str],
) -> torch.Tensor:
    """Advantage of each clip or, with dense rewards, of each step of a clip."""
    if args.dense_rewards:
        scored = partial(run.scores, unfinished=True)
        gains = gathered(run, [step_gains(part, scored) for part in rollouts])
        return step_advantages(gains, prompts, list(rollouts[0][0].log_probabilities))
    if args.advantages == "group":
        return group_z_scores(rewards, prompts)
    return statistics.advantages(rewards, prompts)


def kept_rows(
    run: AlignmentRun, args: DDPOArguments, rewards: torch.Tensor, prompts: list[str]
) -> list[int]:
    """Which clips of this process are trained on: the best and the worst of each prompt."""
    share = len(prompts) // run.accelerator.num_processes
    if share % args.clips_per_prompt:
        raise ValueError(
            f"`keep_clips` needs all clips of a prompt in one process: {share} clips of a process "
            f"are no multiple of {args.clips_per_prompt} (`clips_per_prompt`)"
        )
    first = share * run.accelerator.process_index
    kept = best_and_worst(rewards, prompts, args.keep_clips)
    return [row - first for row in kept if first <= row < first + share]


@torch.no_grad()
def scores(run: AlignmentRun, rollouts: list[Rollout]) -> torch.Tensor:
    """Rewards of the clips of an update."""
    return torch.cat([run.scores(batch.clean, batch.prompts.texts) for batch in rollouts])


def learn(
    run: AlignmentRun,
    args: DDPOArguments,
    rollouts: list[Rollout],
    advantages: torch.Tensor,
    steps: list[int] | None = None,
) -> list[Metrics]:
    """One update; what is worth logging, a number for each clip.

    The objective is the mean over clips and steps, independent of the batches. They are those of
    the sampling: with other companions a clip's log-probability would differ by rounding, and the
    ratio would not be exactly 1 before the first update.

    Args:
        run: of the policy.
        args: of the run.
        rollouts: the clips.
        advantages: of each clip, or of each step of a clip.
        steps: to train on; None: all that have a density.
    """
    parts = advantages.split([len(batch.prompts) for batch in rollouts])
    trained = list(rollouts[0].log_probabilities) if steps is None else steps
    metrics: list[Metrics] = []
    for batch, part in zip(rollouts, parts, strict=True):
        for index in trained:
            advantage = part if part.ndim == 1 else part[:, index]
            now, kl = step_taken(run.policy, batch, index, reference=args.measure_kl)
            old = batch.log_probabilities[index]
            found = clipped_policy_loss(now, old, advantage, args.clip_range)
            losses = found.loss if kl is None else found.loss + args.kl_weight * kl
            run.backward(losses.sum() / (len(advantages) * len(trained)))
            distance = {} if kl is None else {"kl": kl.detach()}
            metrics.append(
                {
                    **distance,
                    "clip_fraction": found.clipped,
                    "ratio_error": (found.ratio - 1).abs(),
                }
            )
    return [*metrics, {"grad_norm": run.update()}]


if __name__ == "__main__":
    main()
