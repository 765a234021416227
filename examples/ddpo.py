"""DDPO and GRPO: policy gradients through the log-probabilities of stochastic DDIM.

    python examples/ddpo.py --output_dir runs/ddpo
    accelerate launch --num_processes 2 examples/ddpo.py --output_dir runs/ddpo

Each iteration samples clips, scores their latents, and moves the policy towards the steps of those
that did better than their prompt usually does (Black et al. 2024; PPO's clipped ratios). Nothing is
decoded, and the reward needs no gradient.
"""

from dataclasses import dataclass, field

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
from gtsvj_reward.losses import clipped_policy_loss
from gtsvj_reward.reward import group_z_scores


@dataclass(kw_only=True)
class DDPOArguments(AlignArguments):
    """What DDPO adds."""

    eta: float = field(default=1.0, metadata={"help": "Noise of stochastic DDIM while training."})
    advantages: str = field(
        default="prompt",
        metadata={
            "help": "prompt: by the latest rewards of each prompt (DDPO); group: by those of this "
            "iteration (GRPO).",
            "choices": ["prompt", "group"],
        },
    )
    advantage_clip: float = field(default=5.0, metadata={"help": "Advantages are cut to this."})
    epochs: int = field(default=1, metadata={"help": "Passes over the clips of an iteration."})
    updates_per_epoch: int = field(default=1, metadata={"help": "Steps of the optimizer in one."})
    clip_range: float = field(default=1e-4, metadata={"help": "Of the likelihood ratio."})
    kl_weight: float = field(default=0.0, metadata={"help": "Of the divergence to the reference."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.epochs, self.updates_per_epoch) < 1:
            raise ValueError(
                "`epochs` and `updates_per_epoch` must be at least 1, got "
                f"{self.epochs} and {self.updates_per_epoch}"
            )
        if not self.eta > 0:
            raise ValueError(
                f"`eta` must be positive, got {self.eta}: without noise a step has no density"
            )


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
    count, (texts, keys) = args.updates_per_epoch, run.clips(iteration)
    if len(texts) % count:
        raise ValueError(
            f"{len(texts)} clips of a process cannot be spread evenly over {count} updates "
            "(`updates_per_epoch`)"
        )
    # Every `count`-th clip belongs to the same update, however many processes there are.
    rollouts = [run.rollouts(texts[u::count], keys[u::count], eta=args.eta) for u in range(count)]
    # (clip of the update, update), which is the order of the clips.
    rewards = torch.stack([scores(run, part) for part in rollouts], dim=1).flatten()
    everything, prompts = run.gather(rewards), run.prompts_of_all(iteration)
    if args.advantages == "group":
        advantages = group_z_scores(everything, prompts)
    else:
        advantages = statistics.advantages(everything, prompts)
    if not args.kl_weight:
        check_advantages(advantages, everything)
    own = run.share(advantages.clamp(-args.advantage_clip, args.advantage_clip))
    metrics: list[Metrics] = [{"reward": everything}]
    for _ in range(args.epochs):
        for update, part in enumerate(rollouts):
            metrics += learn(run, args, part, own[update::count])
    return metrics


@torch.no_grad()
def scores(run: AlignmentRun, rollouts: list[Rollout]) -> torch.Tensor:
    """Rewards of the clips of an update."""
    return torch.cat([run.scores(batch.clean, batch.prompts.texts) for batch in rollouts])


def learn(
    run: AlignmentRun, args: DDPOArguments, rollouts: list[Rollout], advantages: torch.Tensor
) -> list[Metrics]:
    """One update; what is worth logging, a number for each clip.

    The objective is the mean over clips and steps, whatever the batches. They are those of the
    sampling: with other companions a clip's log-probability would differ by rounding, and the ratio
    would not be exactly 1 before the first update.
    """
    parts = advantages.split([len(batch.prompts) for batch in rollouts])
    metrics: list[Metrics] = []
    for batch, advantage in zip(rollouts, parts, strict=True):
        for index, old in batch.log_probabilities.items():
            now, kl = step_taken(run.policy, batch, index)
            found = clipped_policy_loss(now, old, advantage, args.clip_range)
            losses = found.loss + args.kl_weight * kl
            run.backward(losses.sum() / (len(advantages) * len(batch.log_probabilities)))
            metrics.append(
                {
                    "kl": kl.detach(),
                    "clip_fraction": found.clipped,
                    "ratio_error": (found.ratio - 1).abs(),
                }
            )
    return [*metrics, {"grad_norm": run.update()}]


if __name__ == "__main__":
    main()
