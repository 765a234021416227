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

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.backbones.wan import TEXT_LENGTH
from gtsvj_reward.locks import lock_of
from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient

SCORERS: dict[tuple[str, bool], ClipScorer] = {}
"""Scorers loaded in this process, by configuration, and by whether samples contain embeddings."""

EMBEDS = "prompt_embeds"
"""Setting, and key of a sample's `extra_info`."""

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
        extra_info: of the rollout; may contain latents, and prompt embeddings, which are used with
            `prompt_embeds`.
        reward_router_address: of verl-omni's own reward model; ignored, like the next three.
        reward_model_tokenizer: ignored.
        model_name: ignored.
        sampling_params: ignored.
        reward_model: handle of a named model; see `compute_native_score`.
        settings: fields of `ScorerConfig`, e.g. `judge` or `server_url`, and `latents_of`; and
            `prompt_embeds`: True gives a judge that reads prompts the rollout's own embeddings of
            them, so that no `text_encoder` is loaded. For Wan.

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
    scorer = scorer_for(*split(settings))
    text = text_from(*embeds_of(extra_info)) if scorer.takes_text else None
    return numbers(score_media(scorer, *media_of(sample, extra_info), prompt, text))


async def compute_native_score(
    *,
    solution_image: Tensor,
    reward_model: Any,
    data_source: str | None = None,
    ground_truth: str | None = None,
    extra_info: Mapping[str, Any] | None = None,
    prompt_embeds: bool = False,
) -> dict[str, float]:
    """As `compute_score`, by a `GTSVJRewardModel` that verl-omni has placed.

    Args:
        solution_image: as for `compute_score`.
        reward_model: handle of the named model.
        data_source: ignored.
        ground_truth: the prompt; used with `text_encoder`.
        extra_info: as for `compute_score`.
        prompt_embeds: send the prompt's embeddings, for a model with the same setting.
    """
    del data_source
    latents, frames = media_of(solution_image, extra_info or {})
    sent = {"embeds": embeds_of(extra_info or {})} if prompt_embeds else {}
    scores: dict[str, float] = await reward_model.infer(
        latents=latents, frames=frames, prompt=ground_truth, **sent
    )
    return scores


class GTSVJRewardModel:
    """A judge as a named native model: `reward.models.<name>.executor.model`.

    Args:
        model_path: the judge; a checkpoint folder, bundled name or hub id.
        device: where verl-omni has placed it.
        settings: further fields of `ScorerConfig`, `latents_of` or `encode_with` among them, and
            `prompt_embeds`, as for `compute_score`.
    """

    def __init__(self, model_path: str, device: Any, **settings: Any) -> None:
        config, takes_text = split(settings, judge=str(model_path), device=str(device))
        self.scorer: ClipScorer | None = config.load(takes_text=takes_text)

    def infer(
        self,
        latents: Tensor | None = None,
        frames: Tensor | None = None,
        prompt: str | None = None,
        embeds: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> dict[str, float]:
        """Score of one video, from its latents or its decoded frames, and its prompt.

        Args:
            latents: see `media_of`, likewise `frames`.
            frames: see there.
            prompt: read with `text_encoder`.
            embeds: of the prompt, and their mask; read with `prompt_embeds`.

        Raises:
            RuntimeError: after `close`.
        """
        if self.scorer is None:
            raise RuntimeError("this reward model was closed")
        text = text_from(*embeds) if self.scorer.takes_text else None
        return numbers(score_media(self.scorer, latents, frames, prompt, text))

    def close(self) -> None:
        """Release the judge and the VAE."""
        self.scorer = None


def split(settings: Mapping[str, Any], **placed: Any) -> tuple[ScorerConfig, bool]:
    """The scorer's settings, and whether each sample brings embeddings of its prompt.

    Raises:
        ValueError: for `prompt_embeds` beside `text_encoder`.
    """
    values = {**placed, **settings}
    takes_text = bool(values.pop(EMBEDS, False))
    if takes_text and values.get("text_encoder") is not None:
        raise ValueError("`prompt_embeds` replaces `text_encoder`: give only one of them")
    return ScorerConfig.from_dict(values), takes_text


def embeds_of(extra_info: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
    """What a rollout left of the prompt's embeddings and their mask."""
    return extra_info.get(EMBEDS), extra_info.get(f"{EMBEDS}_mask")


def text_from(embeds: Tensor | None, mask: Tensor | None) -> TextCondition:
    """Embeddings of one prompt as Wan's rollouts leave them, as a batch of one.

    Args:
        embeds: (word, text_dim), zeros behind the words of the prompt.
        mask: (word,), all valid, since Wan attends to the zeros too.

    Raises:
        ValueError: if there are none, or of another shape, length or mask.
    """
    if embeds is None:
        raise ValueError(
            "`prompt_embeds` is set, and the sample's `extra_info` has none: its rollout keeps no "
            "embeddings; give `text_encoder` instead"
        )
    if embeds.ndim != 2 or len(embeds) != TEXT_LENGTH:
        raise ValueError(
            f"expected `prompt_embeds` of one prompt ({TEXT_LENGTH}, text_dim), as Wan's pipeline "
            f"pads them, got {tuple(embeds.shape)}: leave `max_sequence_length` of the rollout at "
            f"{TEXT_LENGTH}, or give `text_encoder`"
        )
    if mask is not None and not bool(mask.all()):
        raise ValueError(
            f"{int((mask == 0).sum())} of {len(mask)} embeddings of the prompt are masked, and Wan "
            "attends to all: the rollout is of another model; give `text_encoder`"
        )
    return TextCondition(embeds[None], family="WanTransformer3DModel")


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
    text: TextCondition | None = None,
) -> RewardOutput:
    """Scores of a batch of one: of its latents if the scorer takes them, else of its frames."""
    prompts = None if prompt is None else [prompt]
    if latents is not None and (scorer.space is not None or frames is None):
        clip = batch_of_one(latents, "latents")
        return scorer.score_latents(clip, "BCTHW", prompts=prompts, text=text)
    if frames is None:
        raise ValueError("the sample has neither latents nor decoded frames")
    pixels = batch_of_one(frames, "frames").float() / 255
    return scorer.score_frames(pixels, prompts=prompts, text=text)


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


def scorer_for(config: ScorerConfig, takes_text: bool = False) -> ClipScorer:
    """The scorer of a configuration, made once in this process."""
    with lock_of(scorer_for):  # so that threads do not load it twice
        key = config.key(), takes_text
        if key not in SCORERS:
            SCORERS[key] = config.load(ScoreClient, takes_text=takes_text)
        return SCORERS[key]
