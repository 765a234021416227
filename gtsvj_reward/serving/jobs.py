"""From a request to scores: what is checked before it waits, and how requests share a batch."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import JudgeOutput
from gtsvj_reward.judge.conditions import image_for
from gtsvj_reward.reward import Clips, GTSVJReward, RewardOutput
from gtsvj_reward.reward.assemble import assemble, require_finite_scores
from gtsvj_reward.serving.protocol import ScoreRequest
from gtsvj_reward.serving.spaces import check_name

logger = logging.getLogger(__name__)

Condition = TypeVar("Condition", TextCondition, ImageCondition)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Clips of one shape that a judge can score, and what of the answer is known already."""

    reward: GTSVJReward
    """The judge, as it was when the request came."""
    clips: Float[Tensor, "clip time channel height width"]
    """Checked and unpadded, on the CPU."""
    text: TextCondition | None
    """One row per clip, for judges that read prompts."""
    image: ImageCondition | None = None
    """Likewise, for judges that see reference images."""
    scale: tuple[float, float]
    """Mean and standard deviation to normalise by."""
    notes: tuple[str | None, ...]
    """Per clip, what of its geometry was not trained on."""

    @property
    def size(self) -> int:
        """Number of clips."""
        return len(self.clips)

    @property
    def work(self) -> int:
        """How much there is to do, in latent values; clips of other sizes take other times."""
        return self.clips.numel()

    @property
    def kind(self) -> Hashable:
        """Jobs of one kind can share a batch."""
        text = None if self.text is None else self.text.kind
        image = None if self.image is None else self.image.kind
        return (id(self.reward), self.clips.shape[1:], text, image)


def admit(reward: GTSVJReward, request: ScoreRequest, max_clips: int) -> Job:
    """Raise all errors of a request that can be found before scoring.

    Args:
        reward: what will score it.
        request: as it was sent.
        max_clips: the most clips of one request.

    Raises:
        LatentSpaceError: foreign space, wrong channels, unscaled or non-finite latents.
        GeometryError: clips outside the trained range.
        ValueError: too many clips, sizes that cannot be cut into patches, prompts or images that
            do not go with the judge, normalisation without statistics.
    """
    if len(request) > max_clips:
        raise ValueError(f"{len(request)} clips in one request, expected at most {max_clips}")
    if request.space is None:
        check_name(reward.space, request.space_id)
    clips = request.checked(
        reward.space,
        check_statistics=reward.check_statistics,
        trained=reward.config.latent_statistics,
    )
    latents = torch.stack(list(clips.latents))
    reward.judge.backbone.check_geometry(latents)
    notes = reward.notes(clips)
    text = request.prompts(reward.reads_text)
    reward.judge.condition(text, len(latents))
    reward.judge.backbone.check_text(text)
    image = image_for(reward.config, request.image)
    reward.judge.backbone.check_image(image, latents)
    return Job(
        reward=reward,
        clips=latents,
        text=text if text is None else as_float32(text),
        image=image if image is None else image_as_float32(image),
        scale=reward.statistics() if request.normalize else (0.0, 1.0),
        notes=notes,
    )


def has_statistics(reward: GTSVJReward) -> bool:
    """Whether its scores can be normalised."""
    return reward.selection is not None or reward.config.reward_std is not None


def as_float32(text: TextCondition) -> TextCondition:
    """Embeddings in one type, so that requests of several types can share a batch."""
    pooled = None if text.pooled is None else text.pooled.float()
    return replace(text, embeds=text.embeds.float(), pooled=pooled)


def image_as_float32(image: ImageCondition) -> ImageCondition:
    """Likewise, reference images."""
    embeds = None if image.embeds is None else image.embeds.float()
    return replace(image, latents=image.latents.float(), embeds=embeds)


@torch.no_grad()
def score_jobs(jobs: Sequence[Job]) -> list[RewardOutput | ValueError]:
    """For each job of one kind its scores, or why there are none.

    An error of one job affects only that job: if a batch fails, each job is scored alone.
    """
    reward = jobs[0].reward
    try:
        # float16 and bfloat16 are exact in float32, and the backbone casts to its own type anyway.
        clips = Clips(
            latents=[clip.float().to(reward.device) for job in jobs for clip in job.clips],
            text=joined(TextCondition, [job.text for job in jobs]),
            image=joined(ImageCondition, [job.image for job in jobs]),
        )
        outputs = iter(outputs_of(reward, clips))
        aspects, selection = reward.config.aspects, reward.selection
        return [
            require_finite_scores(
                assemble(
                    [next(outputs) for _ in job.clips],
                    aspects,
                    selection,
                    job.scale,
                    notes=job.notes,
                    noise=reward.noise,
                    pessimism=reward.pessimism,
                )
            )
            for job in jobs
        ]
    except ValueError as error:
        if len(jobs) == 1:
            return [error]
    return [outcome for job in jobs for outcome in score_jobs([job])]


def outputs_of(reward: GTSVJReward, clips: Clips) -> list[JudgeOutput]:
    """The judge's output for clips of one shape, in batches."""
    size, count = reward.batch_size, len(clips)
    parts = (clips.rows(range(first, min(first + size, count))) for first in range(0, count, size))
    return [output for part in parts for output in halving(reward, part)]


def halving(reward: GTSVJReward, clips: Clips) -> list[JudgeOutput]:
    """The judge's output for a batch, split into as many parts as memory requires.

    Raises:
        RuntimeError: if there is not enough memory for one clip; see `is_out_of_memory`.
    """
    try:
        return reward.outputs(clips)
    except (RuntimeError, MemoryError) as error:
        if len(clips) == 1 or not is_out_of_memory(error):
            raise
    # Out here, where the failure no longer holds what it had allocated.
    logger.warning(
        "out of memory with %d clips: scored in halves. A lower --max_batch_size is faster",
        len(clips),
    )
    if reward.device.type == "cuda":
        torch.cuda.empty_cache()
    middle = (len(clips) + 1) // 2
    first = halving(reward, clips.rows(range(middle)))
    return first + halving(reward, clips.rows(range(middle, len(clips))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch has no error of its own."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def joined(kind: type[Condition], conditions: Sequence[Condition | None]) -> Condition | None:
    """The rows of several conditions of one kind."""
    given = [condition for condition in conditions if condition is not None]
    return kind.cat(given) if given else None
