"""The clipped objective of policy gradients."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class PolicyLoss(NamedTuple):
    """The loss of each sample, and what is worth logging of it."""

    loss: Float[Tensor, " sample"]
    """To be minimised."""
    ratio: Float[Tensor, " sample"]
    """Likelihood under the policy over that when it was sampled; no gradient."""
    clipped: Float[Tensor, " sample"]
    """1 where clipping is active, so that the sample has no gradient; else 0."""


def clipped_policy_loss(
    log_probabilities: Float[Tensor, " sample"],
    old_log_probabilities: Float[Tensor, " sample"],
    advantages: Float[Tensor, " sample"],
    clip_range: float,
) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, Eq. 7), as a loss.

    With ρ = exp(log p - log p_old), advantage A and clip range c,

        L = -min(ρ A, clip(ρ, 1 - c, 1 + c) A)

    Args:
        log_probabilities: of the samples under the policy, differentiable.
        old_log_probabilities: of the same samples when they were drawn; no gradient flows.
        advantages: positive for samples to make likelier; no gradient flows.
        clip_range: c > 0.

    Raises:
        ValueError: a clip range that is not positive, or shapes that differ.
    """
    if not clip_range > 0:
        raise ValueError(f"`clip_range` must be positive, got {clip_range}")
    shapes = [tuple(x.shape) for x in (log_probabilities, old_log_probabilities, advantages)]
    if len(set(shapes)) > 1:
        raise ValueError(
            "expected as many log-probabilities, old ones and advantages, got shapes "
            f"{', '.join(map(str, shapes))}"
        )
    advantages = advantages.detach()
    ratio = (log_probabilities - old_log_probabilities.detach()).exp()
    free = ratio * advantages
    held = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    return PolicyLoss(-torch.minimum(free, held), ratio.detach(), (held < free).float().detach())
