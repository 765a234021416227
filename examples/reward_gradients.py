"""Reward gradients: back-propagate the score of the latents into the sampler. Nothing is decoded.

    python examples/reward_gradients.py --output_dir runs/gradients --backprop_steps 2
    python examples/reward_gradients.py --output_dir runs/refl --method refl

`draft` differentiates the last K denoising steps (DRaFT-K of Clark et al. 2024; with random K,
AlignProp); `refl` stops at a random late step and differentiates the clean latents predicted there
(Xu et al. 2023).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from shared import make_run, parse

from gtsvj_reward.alignment import (
    AlignArguments,
    AlignmentRun,
    Metrics,
    batches,
    differentiable_sample,
    predicted_sample,
    prediction_drift,
)
from gtsvj_reward.flags import documented
from gtsvj_reward.losses import reward_loss
from gtsvj_reward.random_keys import keyed_generator


@documented
@dataclass(kw_only=True)
class RewardGradientArguments(AlignArguments):
    """Settings of reward gradients."""

    method: Literal["draft", "refl"] = "draft"
    """draft: the last K steps; refl: one step, and the clean latents it predicts."""
    backprop_steps: list[int] = field(default_factory=lambda: [1])
    """draft: K, or a range LOW HIGH from which each iteration draws one."""
    refl_steps: list[int] | None = None
    """refl: range LOW HIGH of steps, from 0, one of which is differentiated; by default those of
    the last quarter but the very last, at least two: 2 3 of 5, 15 18 of 20."""
    target: float | None = None
    """Reward above which clips are pulled back; none by default."""
    drift_weight: float = 0.0
    """Weight of the distance between predictions and those of the reference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refl_steps is None:
            self.refl_steps = late_steps(self.num_inference_steps)
        lowest, highest = (1, self.num_inference_steps)
        name, given = "backprop_steps", self.backprop_steps
        if self.method == "refl":
            lowest, highest = (0, self.num_inference_steps - 1)
            name, given = "refl_steps", self.refl_steps
        if len(given) not in (1, 2) or not lowest <= given[0] <= given[-1] <= highest:
            raise ValueError(
                f"`{name}` must be one or two numbers within {lowest}..{highest}, the lower first; "
                f"got {given}"
            )


def late_steps(steps: int) -> list[int]:
    """Range of the steps that ReFL differentiates by default.

    Xu et al. (2023) draw one of the last 10 of 40: predictions from noisier latents say too little
    about the clip. The very last step is left to `draft` with K = 1, which it equals.

    Args:
        steps: of the schedule.

    Returns:
        Lowest and highest index, from 0.
    """
    highest = max(steps - 2, 0)
    return [max(min(3 * steps // 4, highest - 1), 0), highest]


def main(argv: list[str] | None = None) -> AlignmentRun:
    args = parse(RewardGradientArguments, argv)
    run = make_run(args)
    for iteration in run.iterations():
        run.finish(iterate(run, args, iteration))
    return run


def iterate(run: AlignmentRun, args: RewardGradientArguments, iteration: int) -> list[Metrics]:
    """Sample with a graph, score, learn; what is worth logging, a number for each clip."""
    texts, keys = run.sampler.clips(iteration)
    metrics: list[Metrics] = []
    steps, chosen = args.num_inference_steps, draw_step(args, iteration)
    for part in batches(len(texts), args.batch_size):
        prompts = run.policy.encode(texts[part])
        if args.method == "draft":
            latents = differentiable_sample(
                run.policy, prompts, keys[part], steps=steps, last=chosen
            )
        else:
            latents = predicted_sample(run.policy, prompts, keys[part], steps=steps, stop=chosen)
        rewards = run.scores(latents, texts[part], unfinished=args.method == "refl")
        losses = reward_loss(rewards, target=args.target, reduction="none")
        run.backward(losses.sum() / len(texts))
        # A second, small graph: the first one is freed by now.
        with torch.set_grad_enabled(args.drift_weight > 0):
            drift = prediction_drift(run.policy, latents, prompts, keys[part])
        if args.drift_weight:
            run.backward(args.drift_weight * drift.sum() / len(texts))
        metrics.append({"reward": rewards.detach(), "drift": drift.detach()})
    return [*metrics, {"grad_norm": run.update()}]


def draw_step(args: RewardGradientArguments, iteration: int) -> int:
    """K of `draft`, or the step of `refl`."""
    given = args.backprop_steps if args.method == "draft" else args.refl_steps
    generator = keyed_generator(args.seed, 3, iteration)
    return int(torch.randint(given[0], given[-1] + 1, (), generator=generator))


if __name__ == "__main__":
    main()
