"""The loss of a generator that is trained through a reward's gradient."""

import math

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.losses.reduction import Reduction, at_least_float32, check_reduction


def reward_loss(
    rewards: Float[Tensor, " batch"],
    target: float | None = None,
    scale: float = 1.0,
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    """Loss whose descent raises rewards, as reward-gradient trainers (VADER, VideoX-Fun) write it.

    With reward r, scale s and target t,

        L = -s r            without a target
        L = s |r - t|       with one: rewards above the target are pulled down again

    Args:
        rewards: r, (batch,); higher is better.
        target: t; None: without bound.
        scale: s > 0.
        reduction: `"none"` gives the loss per clip, `"mean"` their mean.

    Returns:
        Loss per clip (batch,), or a scalar; half-precision rewards are read in float32.

    Raises:
        ValueError: a scale that is not positive, a target that is not finite, or an unknown
            reduction.
    """
    check_reduction(reduction)
    check_objective(target, scale)
    values = at_least_float32(rewards)
    loss = -values if target is None else (values - target).abs()
    scaled = scale * loss
    return scaled.mean() if reduction == "mean" else scaled


def check_objective(target: float | None, scale: float) -> None:
    """Reject a target and a scale that would train nothing; see `reward_loss`.

    Raises:
        ValueError: with what was given.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"`scale` must be positive and finite, got {scale}")
    if target is not None and not math.isfinite(target):
        raise ValueError(f"`target` must be finite, or None for no bound, got {target}")
