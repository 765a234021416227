"""Flow-Factory: `GTSVJRewardModel`, a `PointwiseRewardModel` for `reward_model:` in its YAML.

Written against X-GenGroup/Flow-Factory (`rewards/abc.py`, `rewards/reward_processor.py`,
`utils/trajectory_collector.py`, `models/wan/wan2_t2v.py`). Flow-Factory passes the fields of a
sample that the signature of `__call__` names, unless one is None in any sample of the batch. The
class is created on first access, since its base class belongs to Flow-Factory.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """Create `GTSVJRewardModel` on first access."""
    if name == "GTSVJRewardModel":
        return reward_model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def reward_model_class() -> type:
    """The class `GTSVJRewardModel`.

    Raises:
        ImportError: if Flow-Factory is not installed.
    """
    from flow_factory.rewards.abc import (  # type: ignore[import-not-found]
        PointwiseRewardModel,
        RewardModelOutput,
    )

    class GTSVJRewardModel(PointwiseRewardModel):
        """Scores the clean latents of a trajectory, or decoded videos where there are none.

        The YAML entry holds fields of `ScorerConfig`, beside Flow-Factory's own: `device`,
        `dtype` (bfloat16 unless it says otherwise) and `batch_size` are read from those.
        """

        required_fields = ("prompt",)
        use_tensor_inputs = True

        def __init__(self, config: Any, accelerator: Any) -> None:
            super().__init__(config, accelerator)
            settings = ScorerConfig.from_dict(config.extra_kwargs)
            self.scorer = settings.on(self.device, self.dtype, config.batch_size).load(ScoreClient)

        def __call__(
            self,
            prompt: Sequence[str],
            video: Sequence[Tensor] | None = None,
            all_latents: Sequence[Tensor] | None = None,
            latent_index_map: Sequence[Tensor] | None = None,
        ) -> Any:
            """One reward per sample, with its parts in `extra_info`."""
            scores = score_samples(self.scorer, video, all_latents, latent_index_map, prompt)
            if len(scores.rewards) != len(prompt):
                raise ValueError(f"got {len(prompt)} prompts for {len(scores.rewards)} clips")
            return RewardModelOutput(rewards=scores.rewards, extra_info=scores.numbers())

        def to(self, device: torch.device) -> Any:
            """Move judge and VAE."""
            self.scorer.to(device)
            return super().to(device)

    GTSVJRewardModel.__qualname__ = "GTSVJRewardModel"  # found, and pickled, by this name
    return GTSVJRewardModel


@torch.no_grad()
def score_samples(
    scorer: ClipScorer,
    video: Sequence[Tensor] | None,
    all_latents: Sequence[Tensor] | None,
    latent_index_map: Sequence[Tensor] | None,
    prompt: Sequence[str] | None = None,
) -> RewardOutput:
    """Scores of a batch: of its latents if the scorer takes them, otherwise of its videos.

    Args:
        scorer: for latents, decoded videos, or both.
        video: per sample (time, 3, height, width), colours in [0, 1].
        all_latents: per sample the stored steps of its trajectory (step, channel, time, height,
            width), in the generator's scale.
        latent_index_map: per sample, for each step of the schedule and the clean latents at its
            end, where they are stored; -1: they are not.
        prompt: per sample, for a scorer that encodes prompts.

    Raises:
        ValueError: if there are no clean latents, and no VAE to encode videos with.
    """
    clean = None if scorer.space is None else clean_latents(all_latents, latent_index_map)
    if clean is not None:
        return scorer.score_latents(clean, "BCTHW", prompts=prompt)
    if scorer.vae is None:
        raise ValueError(
            "Flow-Factory did not store the clean latents: it stores none in evaluation, and GRPO "
            "only the steps that it trains on. Set `encode_with` to the judge's VAE, which encodes "
            "decoded videos where latents are missing, or give `eval_rewards` of another kind and "
            "train on the last step"
        )
    if video is None:
        raise ValueError("no video reached the reward: the samples have neither latents nor videos")
    logger.info("no clean latents among the samples: scoring decoded videos")
    return scorer.score_frames(list(video), prompts=prompt)


def clean_latents(
    all_latents: Sequence[Tensor] | None, latent_index_map: Sequence[Tensor] | None
) -> list[Tensor] | None:
    """The latents at the end of each trajectory; None if they were not stored."""
    if all_latents is None or latent_index_map is None:
        return None
    places = [int(index_map[-1]) for index_map in latent_index_map]
    if min(places) < 0:
        return None
    return [steps[place] for steps, place in zip(all_latents, places, strict=True)]
