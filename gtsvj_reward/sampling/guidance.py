"""Steering a pipeline by the gradient of a reward."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.reward.clips import clip_label, require_finite
from gtsvj_reward.sampling.callbacks import RewardCallback
from gtsvj_reward.sampling.clean import Step
from gtsvj_reward.sampling.scoring import Scoring


def last_quarter(count: int) -> range:
    """Indices of the last quarter of a run's steps, at least one."""
    return range(count - max(1, count // 4), count)


@dataclass(eq=False, repr=False)
class RewardGuidance(RewardCallback):
    """Moves the latents along the gradient of the reward at the predicted clean latents x̂₀.

        with RewardGuidance(pipe, reward, num_frames=49, scale=0.1) as guidance:
            pipe(prompt, num_frames=49, callback_on_step_end=guidance)

    After a chosen step that took a clip from x to x', x' + s ‖x' - x‖ g/‖g‖ takes the place of x',
    with g the reward's gradient at x̂₀. It is not propagated through the generator: that costs one
    forward and backward pass of the judge per chosen step, and none of the pipeline's transformer.

    A judge of clean latents is reliable late in the schedule only, so the last quarter is the
    default. Gradients also exploit errors of the judge: look at the videos.

    Other settings are those of `RewardCallback`; the reward must be differentiable with respect to
    the latents, and by default the last quarter of the steps is guided.

    Raises:
        ValueError: as `RewardCallback`, or for a scale out of range.
    """

    scale: float = field(kw_only=True)
    """s > 0, in lengths of the step's own update; small numbers, 0.05 or so, first."""

    def __post_init__(self) -> None:
        """Refuse a scale that guides nowhere."""
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` must be > 0 and finite, got {self.scale}")
        super().__post_init__()

    def default_steps(self, count: int) -> range:
        """The last quarter of a run's steps."""
        return last_quarter(count)

    def take(self, step: Step, tensors: dict[str, Any]) -> dict[str, Any]:
        """Replace the latents after a chosen step.

        `records` gets the rewards of x̂₀ before the change, and the norms of the gradients and of
        the step's own updates.

        Raises:
            ValueError: if the pipeline hands over no latents, or a gradient is 0.
            NonFiniteError: if a gradient is NaN or infinite.
        """
        if "latents" not in tensors:
            raise ValueError(
                "guidance changes the latents: leave `callback_on_step_end_tensor_inputs` as it "
                f"is, or put 'latents' into it; got {sorted(tensors)}"
            )
        latents = tensors["latents"]
        rewards, gradient = reward_gradient(self.scoring, step.clean)
        update = norms(latents.float() - step.noisy.float())
        length = norms(gradient)
        check_gradient(length, step.index)
        change = self.scale * (update / length).view(-1, 1, 1, 1, 1) * gradient
        self.records.append(
            {
                "step": step.index,
                "timestep": step.timestep,
                "rewards": rewards.tolist(),
                "gradient_norms": length.tolist(),
                "update_norms": update.tolist(),
            }
        )
        return {**tensors, "latents": (latents.float() + change).to(latents.dtype)}


def reward_gradient(
    scoring: Scoring, latents: Float[Tensor, "clip a b height width"]
) -> tuple[Float[Tensor, " clip"], Float[Tensor, "clip a b height width"]]:
    """Rewards, and the gradient of each with respect to its own clip.

    Raises:
        ValueError: if the reward is not differentiable.
    """
    # Pipelines run without gradients; a caller may even have forbidden them for good.
    with torch.inference_mode(mode=False), torch.enable_grad():
        clean = latents.detach().clone().requires_grad_()
        rewards = scoring.scores(clean, unfinished=True)
        if not rewards.requires_grad:
            raise ValueError(
                "the reward gave scores without a graph, so there is nothing to guide by: it "
                "must be differentiable; a judge must not be offloaded"
            )
        # A score depends on its own clip alone, so the sum's gradient holds one per clip.
        (gradient,) = torch.autograd.grad(rewards.sum(), clean)
    return rewards.detach(), gradient


def norms(latents: Float[Tensor, "clip a b height width"]) -> Float[Tensor, " clip"]:
    """Euclidean norm of each clip."""
    lengths: Tensor = torch.linalg.vector_norm(latents.flatten(1), dim=1)
    return lengths


def check_gradient(length: Float[Tensor, " clip"], index: int) -> None:
    """Reject gradients without a direction.

    Raises:
        NonFiniteError: for NaN or infinity, with the clip's index.
        ValueError: for 0.
    """
    before = f"at step {index} the norm of the reward's gradient for"
    require_finite(length, before, "is not finite:")
    flat = (length == 0).nonzero().flatten().tolist()
    if flat:
        raise ValueError(
            f"at step {index} the reward's gradient for {clip_label(flat[0])} is 0 ({len(flat)} of "
            f"{len(length)} clips): the reward does not depend on the latents there, so that they "
            "cannot be guided"
        )
