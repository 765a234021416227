"""What a policy gradient follows: rewards relative to others, of which clips and which steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.policy import Policy
from gtsvj_reward.alignment.rollout import Rollout
from gtsvj_reward.alignment.transition import Latents
from gtsvj_reward.reward import group_z_scores
from gtsvj_reward.reward.z_scores import check_rewards


def check_advantages(
    advantages: Float[Tensor, "clip ..."], rewards: Float[Tensor, " clip"]
) -> None:
    """Reject an iteration whose advantages are all 0.

    Args:
        advantages: of all clips of the iteration, or of their steps.
        rewards: the rewards behind them, for the message.

    Raises:
        ValueError: if all advantages are 0.
    """
    if (advantages == 0).all():
        low, high = (bound.item() for bound in rewards.aminmax())
        raise ValueError(
            f"each of the {len(rewards)} clips has the same reward as the others of its prompt "
            f"({low:g} to {high:g}): the reward does not distinguish this policy's clips, or a "
            "prompt has too few different clips"
        )


class PromptStatistics:
    """The latest rewards of each prompt over iterations, as in DDPO (Black et al. 2024).

    The advantage of a clip is (reward - mean) / (std + ε) over the latest rewards of its prompt, or
    over all rewards of this call while the prompt has fewer than `enough`. GRPO's
    `group_z_scores` uses the clips of one iteration alone.

    Args:
        length: number of rewards to keep per prompt.
        enough: rewards that a prompt needs before its own mean and deviation are used, at least 2.
        epsilon: ε > 0, in units of the reward.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, *, length: int = 32, enough: int = 8, epsilon: float = 1e-6) -> None:
        if not 2 <= enough <= length:
            raise ValueError(f"expected 2 <= enough <= length, got {enough} and {length}")
        if not 0 < epsilon < float("inf"):
            raise ValueError(f"`epsilon` must be positive and finite, got {epsilon}")
        self.length = length
        self.enough = enough
        self.epsilon = epsilon
        self.rewards: dict[str, list[float]] = {}

    def advantages(
        self, rewards: Float[Tensor, " clip"], prompts: Sequence[str]
    ) -> Float[Tensor, " clip"]:
        """Record rewards, then normalise them; float32, without gradient.

        Args:
            rewards: of all clips of the iteration, from all processes.
            prompts: one per clip.

        Raises:
            ValueError: for another number of prompts than rewards, or no rewards.
            NonFiniteError: for a reward that is not finite.
        """
        check_rewards(rewards, len(prompts), "prompt")
        values = rewards.detach().double().cpu()
        for prompt, value in zip(prompts, values.tolist(), strict=True):
            kept = self.rewards.setdefault(prompt, [])
            kept.append(value)
            del kept[: -self.length]
        return torch.tensor(
            [
                self._advantage(value, self.rewards[prompt], values)
                for prompt, value in zip(prompts, values.tolist(), strict=True)
            ],
            device=rewards.device,
        )

    def _advantage(self, value: float, own: list[float], everything: Tensor) -> float:
        basis = torch.tensor(own, dtype=torch.float64) if len(own) >= self.enough else everything
        spread = float(basis.std(correction=0))
        return (value - float(basis.mean())) / (spread + self.epsilon)

    def forget(self) -> None:
        """Drop all rewards: those of another judge are on another scale."""
        self.rewards = {}

    def state(self) -> dict[str, list[float]]:
        """What `load` takes, for JSON."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore a state."""
        self.rewards = {prompt: list(values) for prompt, values in state.items()}


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
