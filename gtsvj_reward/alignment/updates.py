"""Checks of losses and gradients before an update."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def check_loss(loss: Tensor, when: str) -> None:
    """Reject a loss without a gradient, or one that is not finite.

    Raises:
        ValueError: for such a loss, with advice.
    """
    if not loss.requires_grad:
        raise ValueError(
            f"the loss of {when} has no gradient: the reward is constant, or is not computed from "
            "the latents by torch. Rewards without gradients need DDPO, GRPO or DPO"
        )
    if not loss.isfinite():
        raise ValueError(
            f"the loss of {when} is {loss.item()}: lower `learning_rate`, or look at the rewards "
            "of the last iterations in metrics.jsonl"
        )


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, when: str) -> float:
    """Clip gradients to a norm; returns the norm before.

    Raises:
        ValueError: if no gradient arrived, or one that is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
    if norm == 0:
        raise ValueError(
            f"the gradient's norm in {when} is 0: the loss does not depend on the policy, or all "
            "rewards are the same"
        )
    if not norm < float("inf"):
        raise ValueError(f"the gradient's norm in {when} is {norm}: training has diverged")
    return norm
