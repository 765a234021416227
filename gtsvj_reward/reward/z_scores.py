"""Rewards of several clips of one prompt, made comparable between prompts."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.reward.clips import require_finite


def group_z_scores(
    rewards: Float[Tensor, " clip"] | np.ndarray | Sequence[float],
    groups: Sequence[Hashable] | Int[Tensor, " clip"],
    *,
    epsilon: float = 1e-6,
    allow_single: bool = False,
) -> Float[Tensor, " clip"]:
    """Advantages as GRPO and DDPO take them: (reward - group mean) / (group std + ε).

    The standard deviation is that of the group itself (divided by its size), so that squared
    z-scores average 1. A group with equal rewards gets exactly 0, since it has no preference.
    Gather the rewards of all processes first if a group is spread over them.

    Args:
        rewards: scores of generated clips, in any order; a tensor, an array or a list.
        groups: the group of each clip, usually its prompt.
        epsilon: ε > 0, in units of the reward; a much smaller spread counts as zero.
        allow_single: give a group of one clip the z-score 0 instead of raising an error.

    Returns:
        Z-score per clip, without gradient, in the dtype of the rewards but at least float32.

    Raises:
        ValueError: no rewards, another number of groups, an epsilon that is not positive and
            finite, or groups of one clip unless allowed.
        NonFiniteError: a reward that is NaN or infinite.
    """
    if not 0 < epsilon < float("inf"):
        raise ValueError(f"`epsilon` must be positive and finite, got {epsilon}")
    if not isinstance(rewards, Tensor):
        rewards = torch.as_tensor(rewards, dtype=torch.float32)
    check_rewards(rewards, len(groups), "group")
    names = groups.tolist() if isinstance(groups, Tensor) else list(groups)
    distinct = {name: number for number, name in enumerate(dict.fromkeys(names))}
    number = torch.tensor([distinct[name] for name in names], device=rewards.device)
    sizes = number.bincount()
    if not allow_single and (sizes == 1).any():
        single = [name for name, size in zip(distinct, sizes.tolist(), strict=True) if size == 1]
        raise ValueError(
            f"the group {single[0]!r} has a single clip ({len(single)} of {len(sizes)} groups): "
            "there is nothing to compare it with. Generate more clips per group, gather them from "
            "all processes, or pass allow_single=True to give it 0"
        )
    scores = standardised(rewards.detach().double(), number, sizes, epsilon)
    return scores.to(torch.promote_types(rewards.dtype, torch.float32))


def standardised(values: Tensor, number: Tensor, sizes: Tensor, epsilon: float) -> Tensor:
    """Z-scores of float64 values within the groups that `number` names, 0, 1, ..."""
    empty = values.new_zeros(len(sizes))
    # Measured from the group's least value: exactly 0 where all are the same.
    apart = values - empty.scatter_reduce(0, number, values, "amin", include_self=False)[number]
    apart = apart - (empty.index_add(0, number, apart) / sizes)[number]
    deviation = (empty.index_add(0, number, apart**2) / sizes).sqrt()
    return apart / (deviation + epsilon)[number]


def check_rewards(rewards: Tensor, count: int, named: str) -> None:
    """Refuse rewards that cannot be normalised.

    Args:
        rewards: of the clips.
        count: how many names of what they were generated from there are.
        named: what those names are, for messages: `group` or `prompt`.

    Raises:
        ValueError: no rewards, or another number of names.
        NonFiniteError: a reward that is NaN or infinite.
    """
    if rewards.ndim != 1 or len(rewards) == 0 or len(rewards) != count:
        raise ValueError(
            f"expected one reward and one {named} per clip, at least one clip; "
            f"got rewards of shape {tuple(rewards.shape)} and {count} {named}s"
        )
    require_finite(rewards, "the reward of", "is")
