"""Selects the clips of a prompt to train on."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.policy import Policy
from gtsvj_reward.alignment.rollout import Rollout


def best_and_worst(rewards: Float[Tensor, " clip"], prompts: Sequence[str], keep: int) -> list[int]:
    """Indices of the best and the worst clips of each prompt, in order; half and half.

    DanceGRPO (Xue et al. 2025) samples more clips than it trains on, and keeps those with extreme
    rewards. Among equal rewards the first clips win.

    Args:
        rewards: of the clips.
        prompts: one per clip.
        keep: clips of each prompt, an even number; 0 keeps all.

    Raises:
        ValueError: for an odd number, or prompts with fewer clips.
    """
    if keep == 0:
        return list(range(len(prompts)))
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(index)
    fewest = min(len(members) for members in groups.values())
    if keep % 2 or not 2 <= keep <= fewest:
        raise ValueError(
            f"`keep_clips` must be an even number, at most the {fewest} clips of a prompt, or 0 "
            f"for all; got {keep}"
        )
    values = rewards.tolist()
    kept: list[int] = []
    for members in groups.values():
        ranked = sorted(members, key=lambda index: -values[index])
        kept += [*ranked[: keep // 2], *ranked[-keep // 2 :]]
    return sorted(kept)


def some_of(policy: Policy, rollouts: Sequence[Rollout], rows: Sequence[int]) -> list[Rollout]:
    """Selects clips of rollouts, each in its own batch; batches without any are dropped.

    Args:
        policy: encodes their prompts.
        rollouts: the batches, in order.
        rows: indices of the clips over all batches.
    """
    found, first = [], 0
    for batch in rollouts:
        own = [row - first for row in rows if first <= row < first + len(batch.prompts)]
        first += len(batch.prompts)
        if own:
            densities = batch.log_probabilities.items()
            part = replace(
                batch,
                prompts=policy.encode([batch.prompts.texts[row] for row in own]),
                keys=tuple(batch.keys[row] for row in own),
                path=tuple(latents[own] for latents in batch.path),
                log_probabilities={index: values[own] for index, values in densities},
                predictions=tuple(latents[own] for latents in batch.predictions),
            )
            found.append(part)
    return found
