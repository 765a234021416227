"""Rewards relative to what a prompt usually gets."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

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
            f"the rewards of all {len(rewards)} clips are the same within their prompts ({low:g} "
            f"to {high:g}), so that no clip is better than another: the reward does not tell this "
            "policy's clips apart, or a prompt has too few clips that differ"
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

    def state(self) -> dict[str, list[float]]:
        """What `load` takes, for JSON."""
        return {prompt: list(values) for prompt, values in self.rewards.items()}

    def load(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore a state."""
        self.rewards = {prompt: list(values) for prompt, values in state.items()}
