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
    PromptStatistics,
    Rollout,
    batches,
    log_probability,
    mean_metrics,
    transition,
    transition_kl,
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


def main(argv: list[str] | None = None) -> AlignmentRun:
    args = parse(DDPOArguments, argv)
    statistics = PromptStatistics()
    run = make_run(args, extra={"prompt_statistics": statistics})
    for iteration in run.iterations():
        texts, keys = run.clips(iteration)
        rollouts = run.rollouts(texts, keys, eta=args.eta)
        with torch.no_grad():
            rewards = torch.cat([run.scores(batch.clean) for batch in rollouts])
        everything, prompts = run.gather(rewards), run.prompts_of_all(iteration)
        if args.advantages == "group":
            advantages = group_z_scores(everything, prompts)
        else:
            advantages = statistics.advantages(everything, prompts)
        advantages = advantages.clamp(-args.advantage_clip, args.advantage_clip)
        metrics = []
        for _ in range(args.epochs):
            metrics += learn(run, args, rollouts, advantages[run.share(len(prompts))])
        run.finish({"reward": everything.mean().item(), **mean_metrics(metrics)})
    return run


def learn(
    run: AlignmentRun, args: DDPOArguments, rollouts: list[Rollout], advantages: torch.Tensor
) -> list[dict[str, float]]:
    """One pass over the clips, in `updates_per_epoch` updates; what is worth logging.

    Batches are those of the sampling: with other companions a clip's log-probability would differ
    by rounding, and the ratio would not be exactly 1 before the first update.
    """
    parts = advantages.split([len(batch.prompts) for batch in rollouts])
    pairs = list(zip(rollouts, parts, strict=True))
    if len(pairs) % args.updates_per_epoch:
        raise ValueError(
            f"{len(pairs)} batches of a process cannot be spread over {args.updates_per_epoch} "
            "updates (`updates_per_epoch`): lower `batch_size` or the number of updates"
        )
    metrics = []
    for part in batches(len(pairs), len(pairs) // args.updates_per_epoch):
        for batch, advantage in pairs[part]:
            steps = [
                learn_step(run, args, batch, advantage, index, share=len(pairs[part]))
                for index in batch.log_probabilities
            ]
            metrics += steps
        metrics.append({"grad_norm": run.update()})
    return metrics


def learn_step(
    run: AlignmentRun,
    args: DDPOArguments,
    batch: Rollout,
    advantage: torch.Tensor,
    index: int,
    share: int,
) -> dict[str, float]:
    """Gradient of one denoising step of one batch, which is one of `share` in its update."""
    here, timestep = batch.path[index], batch.timesteps[index]
    step = transition(run.policy, here, timestep, batch.prompts, args.eta)
    now = log_probability(batch.path[index + 1], step.mean, step.std)
    found = clipped_policy_loss(now, batch.log_probabilities[index], advantage, args.clip_range)
    loss = found.loss.mean()
    with run.policy.reference():
        reference = transition(run.policy, here, timestep, batch.prompts, args.eta)
    kl = transition_kl(step.mean, reference.mean, step.std).mean()
    if args.kl_weight:
        loss = loss + args.kl_weight * kl
    run.backward(loss / (share * len(batch.log_probabilities)))
    return {
        "kl": kl.item(),
        "clip_fraction": found.clipped.mean().item(),
        "ratio_error": (found.ratio - 1).abs().max().item(),
    }


if __name__ == "__main__":
    main()
