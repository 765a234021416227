"""VideoX-Fun (CogVideoX-Fun): a reward for `train_reward_lora.py`, from latents or frames.

Written against aigc-apps/VideoX-Fun (`videox_fun/reward/reward_fn.py`, `BaseReward`, and
`scripts/*/train_reward_lora.py`). The script builds the class named by `--reward_fn` from device,
dtype and `--reward_fn_kwargs`. It calls the object with a batch and its prompts, and expects (loss,
mean reward). It does not check the base class, so this module does not import it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.dtypes import dtype_name
from gtsvj_reward.losses.reward_gradient import check_objective, reward_loss
from gtsvj_reward.reward.scorer_config import ScorerConfig


class GTSVJVideoReward:
    """Loss and reward of latents, or of decoded frames; gradients reach what was handed over.

    With `latents_of` it scores the sampler's clean latents without decoding, after one changed line
    in the script. With `encode_with` it encodes the frames that the script decodes. Judges have no
    maximal score, so the reward is unbounded unless `max_reward` sets a bound.

    Example:
        ```python
        loss_fn = GTSVJVideoReward(
            device="cpu", dtype=torch.float32, judge=judge, latents_of=generator, fps=8.0
        )
        loss, reward = loss_fn(latents, ["a dog runs"])
        ```

    Args:
        device: where the judge goes.
        dtype: of the judge's base weights, and of the VAE that encodes.
        max_reward: see `target` of `reward_loss`.
        loss_scale: see `scale` of `reward_loss`.
        settings: fields of `ScorerConfig`; `latents_of` or `encode_with`.

    Raises:
        ValueError: for both at once, and for unknown settings.
        LatentSpaceError: for a generator or VAE of another latent space than the judge's.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        max_reward: float | None = None,
        loss_scale: float = 1.0,
        **settings: Any,
    ) -> None:
        check_objective(max_reward, loss_scale)
        config = ScorerConfig.from_dict({"vae_dtype": dtype_name(dtype), **settings})
        config = config.on(device, dtype)
        if config.latents_of is not None and config.encode_with is not None:
            raise ValueError(
                "give `latents_of`, if the script passes latents, or `encode_with`, if it passes "
                "decoded frames, not both"
            )
        self.takes_latents = config.latents_of is not None
        self.scorer = config.load()
        self.max_reward = max_reward
        self.loss_scale = loss_scale

    def __call__(
        self, batch_frames: Tensor, batch_prompt: Sequence[str] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss and mean reward, both scalars; see `get_reward` for the arguments."""
        rewards = self.get_reward(batch_frames, batch_prompt)
        return reward_loss(rewards, self.max_reward, self.loss_scale, "mean"), rewards.mean()

    def get_reward(self, batch_frames: Tensor, batch_prompt: Sequence[str] | None = None) -> Tensor:
        """Reward of each clip, (batch,), float32.

        Args:
            batch_frames: scaled latents, or colours in [0, 1]: (batch, channel, time, height,
                width) both.
            batch_prompt: one per clip; used with `text_encoder`, otherwise only counted.

        Raises:
            ValueError: for another number of prompts, a batch that is not of rank 5, or frames that
                cannot be encoded.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward.
        """
        if batch_prompt is not None and len(batch_prompt) != len(batch_frames):
            raise ValueError(f"got {len(batch_prompt)} prompts for {len(batch_frames)} clips")
        if self.takes_latents:
            return self.scorer.score_latents(batch_frames, "BCTHW", prompts=batch_prompt).rewards
        if batch_frames.ndim != 5:
            raise ValueError(
                "expected frames (batch, 3, time, height, width), got shape "
                f"{tuple(batch_frames.shape)}"
            )
        return self.scorer.score_frames(batch_frames.transpose(1, 2), prompts=batch_prompt).rewards
