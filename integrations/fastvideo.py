"""FastVideo: a scorer of media for the rewards of its DiffusionNFT trainer.

Written against hao-ai-lab/FastVideo (`fastvideo/train/methods/rl/rewards/media.py`,
`diffusion_nft.py`). `MultiRewardScorer` calls each scorer with a batch and its prompts, and expects
one number per clip. This module does not import it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gtsvj_reward.reward.clip_scorer import ClipScorer

MediaScorer = Callable[[Tensor, Sequence[str]], Tensor]
"""(media, prompts) -> one number each."""


def media_scorer(scorer: ClipScorer) -> MediaScorer:
    """Make a scorer for `build_multi_reward_scorer(..., scorers=)`.

    Example:
        ```python
        score = media_scorer(ClipScorer(reward, vae=vae, fps=16.0))
        rewards = score(media, prompts)
        ```

    Args:
        scorer: with the judge's VAE, for FastVideo's decoded media; or with the generator's latent
            space, if the trainer is changed to pass `latents_clean`.

    Raises:
        ValueError: for a scorer of both.
    """
    if scorer.space is not None and scorer.vae is not None:
        raise ValueError("give a scorer of latents or one of decoded media: the trainer hands over "
                         "one kind")  # fmt: skip

    @torch.no_grad()
    def score(media: Tensor, prompts: Sequence[str]) -> Tensor:
        if media.ndim != 5 or len(prompts) != len(media):
            raise ValueError(
                f"expected videos, or their latents, of rank 5, one per prompt, got shape "
                f"{tuple(media.shape)} for {len(prompts)} prompts"
            )
        if scorer.space is not None:
            return scorer.score_latents(media, prompts=prompts).rewards
        return scorer.score_frames(media.transpose(1, 2), prompts=prompts).rewards

    return score
