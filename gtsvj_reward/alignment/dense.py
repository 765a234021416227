"""A reward for each denoising step, instead of one per clip."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.rollout import Rollout
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.reward import group_z_scores


@torch.no_grad()
def step_gains(
    rollouts: Sequence[Rollout], scores: Callable[[Latents, Sequence[str]], Tensor]
) -> Float[Tensor, "clip step"]:
    """How much each step raises the score of the predicted clean latents.

    The policy predicts x̂₀ before each step; after the last step it is the clip itself. The gain of
    a step is the difference of two successive scores (after DenseGRPO, Deng et al. 2026). The gains
    of a clip add up to its score minus that of the first prediction.

    Args:
        rollouts: sampled with `predictions=True`, in the order of the clips.
        scores: scores predicted clean latents and their prompts.

    Raises:
        ValueError: for a rollout without predictions.
    """
    rows = []
    for batch in rollouts:
        if len(batch.predictions) != len(batch.timesteps):
            raise ValueError("gains of steps need `rollout(..., predictions=True)`")
        states = [*batch.predictions, batch.clean]
        seen = torch.stack([scores(x, batch.prompts.texts) for x in states], dim=1)
        rows.append(seen.diff(dim=1))
    return torch.cat(rows)


def step_advantages(
    gains: Float[Tensor, "clip step"], prompts: Sequence[str], steps: Sequence[int]
) -> Float[Tensor, "clip step"]:
    """Gains of each step relative to those of the prompt's other clips; 0 for other steps.

    Args:
        gains: of all clips of an iteration.
        prompts: one per clip.
        steps: steps that have a density.
    """
    table = torch.zeros_like(gains)
    for index in steps:
        table[:, index] = group_z_scores(gains[:, index], prompts)
    return table
