"""verl-omni: `compute_score`, for one sample, in the worker's process or on a scoring server.

Written against verl-project/verl-omni (`reward_loop/reward_manager/visual.py` and `multi.py`).
Both managers call by keyword, with further keys from the run's configuration, and take a number or
a dictionary with `score`, whose other entries become metrics. Set `required: true` for it:
otherwise `MultiVisualRewardManager` logs an exception and counts the reward as 0. Nothing here
imports verl-omni.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.locks import lock_of
from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient

SCORERS: dict[str, ClipScorer] = {}
"""What was loaded in this process, by configuration."""

RANKS = {"latents": "(channel, time, height, width)", "frames": "(time, 3, height, width)"}


async def compute_score(
    *,
    solution_image: Tensor,
    data_source: str | None = None,
    ground_truth: str | None = None,
    extra_info: Mapping[str, Any] | None = None,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    model_name: str | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Score of one generated video, and as `gtsvj_<part>` what it is made of.

    With `latents_of`, latents are scored and nothing is decoded: those of
    `pipeline.output_type=latent`, or `latents_clean` that the rollout left in `extra_info`. With
    `encode_with`, decoded videos are encoded with the judge's VAE. With both, latents where there
    are any.

    Args:
        solution_image: latents (channel, time, height, width) in the generator's own scale, or a
            video (time, 3, height, width) of uint8.
        data_source: not read, like the next.
        ground_truth: the prompt.
        extra_info: of the rollout; `latents_clean` is read.
        reward_router_address: verl-omni's own reward model, not read, like the next two.
        reward_model_tokenizer: see there.
        model_name: see there.
        settings: fields of `ScorerConfig`, e.g. `judge` or `server_url`, and `latents_of`.

    Raises:
        ValueError: for settings that are not known, or a sample of a kind that they do not cover.
        LatentSpaceError, GeometryError, NonFiniteError: from the reward, or as `RefusedError` with
            the reason from a server; `ScoreServerError` if that does not answer.
    """
    # Loading, tensor copies and scoring would hold up the event loop of the reward worker.
    scores = await asyncio.to_thread(score_sample, settings, solution_image, extra_info or {})
    parts = {f"gtsvj_{name}": values[0] for name, values in scores.numbers().items()}
    return {"score": float(scores.rewards[0]), **parts}


def score_sample(
    settings: Mapping[str, Any], sample: Tensor, extra_info: Mapping[str, Any]
) -> RewardOutput:
    """Scores of a batch of one, without a graph."""
    scorer = scorer_for(ScorerConfig.from_dict(settings))
    decoded = sample.dtype == torch.uint8
    latents = extra_info.get("latents_clean") if decoded else sample
    with torch.no_grad():
        if latents is not None and (scorer.space is not None or not decoded):
            return scorer.score_latents(batch_of_one(latents, "latents"), "BCTHW")
        return scorer.score_frames(batch_of_one(sample, "frames").float() / 255)


def batch_of_one(sample: Tensor, kind: str) -> Tensor:
    """One sample with a batch axis.

    Raises:
        ValueError: for a single image, or its latents.
    """
    if sample.ndim != 4:
        raise ValueError(
            f"expected {kind} of a video {RANKS[kind]}, got shape {tuple(sample.shape)}: a judge "
            "of videos scores no images"
        )
    return sample[None]


def scorer_for(config: ScorerConfig) -> ClipScorer:
    """The scorer of a configuration, made once in this process."""
    with lock_of(scorer_for):  # so that threads do not load it twice
        key = config.key()
        if key not in SCORERS:
            SCORERS[key] = config.load(ScoreClient)
        return SCORERS[key]
