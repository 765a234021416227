"""verl-omni: `compute_score`, for one sample, in the worker's process or on a scoring server.

Written against verl-project/verl-omni (`reward_loop/reward_manager/visual.py` and `multi.py`).
Both managers call it with keywords, including keys from the run's configuration. They accept a
number, or a dictionary with `score`, whose other entries become metrics. Set `required: true`:
otherwise `MultiVisualRewardManager` logs an exception and counts the reward as 0.
`GTSVJRewardModel` is a named native model on GPUs of its own; `compute_native_score` calls it.
This module does not import verl-omni.
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
"""Scorers loaded in this process, by configuration."""

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
    sampling_params: Any = None,
    reward_model: Any = None,
    **settings: Any,
) -> dict[str, float]:
    """Score of one generated video, with its parts as `gtsvj_<part>`.

    With `latents_of`, latents are scored and nothing is decoded: those of
    `pipeline.output_type=latent`, or those that the rollout left in `extra_info` (see
    `latents_beside`). With `encode_with`, decoded videos are encoded with the judge's VAE. With
    both, latents are preferred.

    Args:
        solution_image: latents (channel, time, height, width) in the generator's own scale, or a
            video (time, 3, height, width) of uint8.
        data_source: ignored.
        ground_truth: the prompt; used with `text_encoder`.
        extra_info: of the rollout; may contain latents.
        reward_router_address: of verl-omni's own reward model; ignored, like the next three.
        reward_model_tokenizer: ignored.
        model_name: ignored.
        sampling_params: ignored.
        reward_model: handle of a named model; see `compute_native_score`.
        settings: fields of `ScorerConfig`, e.g. `judge` or `server_url`, and `latents_of`.

    Raises:
        ValueError: for unknown settings, or a sample that the settings do not cover.
        LatentSpaceError, GeometryError, NonFiniteError: from the reward, or as `RefusedError` with
            the reason from a server; `ScoreServerError` if the server does not answer.
    """
    # Loading, tensor copies and scoring would block the event loop of the reward worker.
    return await asyncio.to_thread(
        score_sample, settings, solution_image, extra_info or {}, ground_truth
    )


def score_sample(
    settings: Mapping[str, Any],
    sample: Tensor,
    extra_info: Mapping[str, Any],
    prompt: str | None = None,
) -> dict[str, float]:
    """Score of a sample, by the scorer that the settings describe."""
    scorer = scorer_for(ScorerConfig.from_dict(settings))
    return numbers(score_media(scorer, *media_of(sample, extra_info), prompt))


async def compute_native_score(
    *,
    solution_image: Tensor,
    reward_model: Any,
    data_source: str | None = None,
    ground_truth: str | None = None,
    extra_info: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """As `compute_score`, by a `GTSVJRewardModel` that verl-omni has placed.

    Args:
        solution_image: as for `compute_score`.
        reward_model: handle of the named model.
        data_source: ignored.
        ground_truth: the prompt; used with `text_encoder`.
        extra_info: as for `compute_score`.
    """
    del data_source
    latents, frames = media_of(solution_image, extra_info or {})
    scores: dict[str, float] = await reward_model.infer(
        latents=latents, frames=frames, prompt=ground_truth
    )
    return scores


class GTSVJRewardModel:
    """A judge as a named native model: `reward.models.<name>.executor.model`.

    Args:
        model_path: the judge; a checkpoint folder, bundled name or hub id.
        device: where verl-omni has placed it.
        settings: further fields of `ScorerConfig`, `latents_of` or `encode_with` among them.
    """

    def __init__(self, model_path: str, device: Any, **settings: Any) -> None:
        placed = {"judge": str(model_path), "device": str(device)}
        self.scorer: ClipScorer | None = ScorerConfig.from_dict({**placed, **settings}).load()

    def infer(
        self,
        latents: Tensor | None = None,
        frames: Tensor | None = None,
        prompt: str | None = None,
    ) -> dict[str, float]:
        """Score of one video, from its latents or its decoded frames, and its prompt.

        Raises:
            RuntimeError: after `close`.
        """
        if self.scorer is None:
            raise RuntimeError("this reward model was closed")
        return numbers(score_media(self.scorer, latents, frames, prompt))

    def close(self) -> None:
        """Release the judge and the VAE."""
        self.scorer = None


def numbers(scores: RewardOutput) -> dict[str, float]:
    """The score of a batch of one, with its parts as `gtsvj_<part>`."""
    parts = {f"gtsvj_{name}": values[0] for name, values in scores.numbers().items()}
    return {"score": float(scores.rewards[0]), **parts}


def media_of(sample: Tensor, extra_info: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """Latents and decoded frames of a sample; None for what verl-omni does not pass."""
    if sample.dtype == torch.uint8:
        return latents_beside(extra_info), sample
    return sample, None


def latents_beside(extra_info: Mapping[str, Any]) -> Tensor | None:
    """Clean latents that a rollout stores beside decoded frames; None if there are none.

    They are the media artifact `video_latent`, or `latents_clean` in earlier releases.

    Raises:
        ValueError: for an artifact whose axes are not channel, time, height, width.
    """
    artifact = (extra_info.get("media_artifacts") or {}).get("video_latent")
    if artifact is None:
        return extra_info.get("latents_clean")
    if artifact.spec.layout != "CTHW":
        raise ValueError(
            f"the artifact `video_latent` has the layout {artifact.spec.layout!r}, expected "
            "'CTHW': packed latents are not scored"
        )
    latents: Tensor = artifact.data
    return latents


@torch.no_grad()
def score_media(
    scorer: ClipScorer,
    latents: Tensor | None,
    frames: Tensor | None,
    prompt: str | None = None,
) -> RewardOutput:
    """Scores of a batch of one: of its latents if the scorer takes them, else of its frames."""
    prompts = None if prompt is None else [prompt]
    if latents is not None and (scorer.space is not None or frames is None):
        return scorer.score_latents(batch_of_one(latents, "latents"), "BCTHW", prompts=prompts)
    if frames is None:
        raise ValueError("the sample has neither latents nor decoded frames")
    return scorer.score_frames(batch_of_one(frames, "frames").float() / 255, prompts=prompts)


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
