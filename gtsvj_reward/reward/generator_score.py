"""A frozen generator as a reward: how much a condition lowers its denoising errors."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.backbones import (
    Backbone,
    ImageCondition,
    NoiseLevel,
    TextCondition,
    denoising_errors,
    noise_levels,
)
from gtsvj_reward.backbones.load import shared_backbone
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.base import Reward
from gtsvj_reward.reward.clips import Clips, require_finite
from gtsvj_reward.reward.output import RewardOutput
from gtsvj_reward.reward.texts import text_of

LEVELS = (0.65, 0.75)
"""Default shares of noise at which the generator denoises: two of the best on captions of the toy
world; see docs/prompts.md."""


class GeneratorScore(Reward):
    """How much better a frozen generator denoises a clip under a condition than without it.

    With the same noise for both, a mean over levels and steps. It needs no training, is
    differentiable with respect to the latents and deterministic given a seed, and costs two passes
    through the whole generator per level; memory is that of one pass.

    In its details, `trajectory` shows where in the clip the condition is met or not, and `parts`
    has the score at each level.

    Args:
        generator: a pipeline (of two experts, as Wan 2.2's A14B, the one that denoises at the
            levels), its transformer, or a `Backbone`. Frozen weights of a transformer are shared as
            by `GTSVJReward.from_pretrained(..., transformer=...)`; adapters in training are
            disabled, so a policy is scored by its base.
        levels: shares of noise between 0 and 1; see `noise_levels`.
        scheduler: that of the generator, needed for a CogVideoX transformer without its pipeline.
        empty: the encoded empty prompt, one row. None: encoded with the pipeline's own encoder;
            without a pipeline, the null condition (embeddings of zeros).
        space: of the latents; None: that of the pipeline; without a pipeline, not checked.
        seed: of the noise, which is the same for all clips of one shape.
        batch_size: clips per forward pass; scores do not depend on it (to 1e-5).
        check_statistics: as for `GTSVJReward`.

    Raises:
        ValueError: for levels, a scheduler or an empty prompt that do not fit the generator.
        SharingError: for weights that cannot be shared, as those that require grad.
    """

    name: str
    reads_text = True

    def __init__(
        self,
        generator: Any,
        *,
        levels: Sequence[float] = LEVELS,
        scheduler: Any = None,
        empty: TextCondition | None = None,
        space: LatentSpace | None = None,
        seed: int = 0,
        batch_size: int = 8,
        check_statistics: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        if isinstance(generator, DiffusionPipeline):
            pipe: Any = generator
            scheduler = pipe.scheduler if scheduler is None else scheduler
            space = LatentSpace.from_pipeline(pipe) if space is None else space
            empty = text_of(pipe, [""]) if empty is None else empty
            generator = expert_of(pipe, levels)
        if empty is not None and len(empty.embeds) != 1:
            raise ValueError(f"`empty` must be one prompt, got {len(empty.embeds)}")
        self.backbone = backbone_of(generator)
        self.check_generator()
        self.levels = levels_by_name(self.backbone, levels, scheduler)
        self.empty = empty
        self.space = space
        self.seed = seed
        self.batch_size = batch_size
        self.check_statistics = check_statistics
        self.mean, self.std = 0.0, 1.0
        self.__name__ = self.name

    @property
    def scored_space(self) -> LatentSpace | None:
        """That of the pipeline, or what was given."""
        return self.space

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(tensor for _, tensor in self.backbone.base_tensors()).device

    def check_generator(self) -> None:
        """Reject an unsuitable generator; by default any is accepted."""

    @abstractmethod
    def check(self, clips: Clips) -> None:
        """Reject clips without the condition."""

    @abstractmethod
    def gains(
        self, latents: Float[Tensor, "batch time channel height width"], clips: Clips
    ) -> Float[Tensor, "batch level step"]:
        """How much the condition lowers the generator's errors.

        Args:
            latents: of clips of one shape, on the generator's device.
            clips: these, with their prompts and images.
        """

    def errors(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        text: TextCondition | None,
        image: ImageCondition | None,
    ) -> Float[Tensor, "batch level step"]:
        """The generator's denoising errors at its levels, with the same noise in every call."""
        levels = list(self.levels.values())
        return denoising_errors(
            self.backbone, latents, levels, text=text, image=image, seed=self.seed
        )

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """Scores of clips under their condition; clips of one shape share forward passes.

        `normalize` has an effect only after `with_statistics`.

        Raises:
            ValueError: without the condition, and for one that does not fit the generator.
        """
        self.check(clips)
        if self.space is not None:
            clips = clips.checked(self.space, check_statistics=self.check_statistics)
        if self.backbone.live is not None:
            self.backbone.live.refresh()
        gains: dict[int, Tensor] = {}
        latents = clips.on(self.device)
        for chosen in clips.buckets(self.batch_size):
            batch = torch.stack([latents[index] for index in chosen])
            gains |= dict(zip(chosen, self.gains(batch, clips.rows(chosen)), strict=True))
        return self.output([gains[index] for index in range(len(clips))], clips, normalize)

    def empty_for(self, batch: int) -> TextCondition | None:
        """The empty prompt for a batch."""
        if self.empty is None:
            return None
        return self.empty.rows(torch.zeros(batch, dtype=torch.long)).to(self.device)

    def output(
        self, gains: Sequence[Float[Tensor, "level _"]], clips: Clips, normalize: bool
    ) -> RewardOutput:
        """Scores from the gains of each clip."""
        trajectory = [clip.mean(dim=0).float() for clip in gains]
        raw = torch.stack([steps.mean() for steps in trajectory])
        require_finite(raw, f"the {self.name.replace('_', ' ')} of", "is", clips.names)
        levels = torch.stack([clip.mean(dim=1).float() for clip in gains])
        return RewardOutput(
            rewards=(raw - self.mean) / self.std if normalize else raw,
            raw=raw,
            trajectory=trajectory,
            parts=dict(zip(self.levels, levels.unbind(dim=1), strict=True)),
            aspect_trajectory=[
                dict(zip(self.levels, clip.float().unbind(dim=0), strict=True)) for clip in gains
            ],
        )

    def with_statistics(self, scores: Float[Tensor, " clip"]) -> "GeneratorScore":
        """Normalise by the mean and standard deviation of raw scores, as for a judge.

        Without it scores are raw, on the scale of the generator's errors: much smaller than 1.

        Raises:
            ValueError: for fewer than two scores, or equal scores.
        """
        if len(scores) < 2 or not scores.std() > 0:
            raise ValueError(f"expected two raw scores or more that differ, got {scores.tolist()}")
        self.mean, self.std = scores.mean().item(), scores.std().item()
        return self


def expert_of(pipe: Any, levels: Sequence[float]) -> Any:
    """The transformer of a pipeline that denoises at these levels.

    Wan 2.2's A14B has two: `transformer` above `boundary_ratio` of the schedule, `transformer_2`
    below it.

    Raises:
        ValueError: for levels on both sides of the boundary.
    """
    other, boundary = pipe.components.get("transformer_2"), pipe.config.get("boundary_ratio")
    if other is None or boundary is None:
        return pipe.transformer
    low = [level for level in levels if level < boundary]
    if low and len(low) < len(levels):
        raise ValueError(
            f"`levels` {tuple(levels)} lie on both sides of the pipeline's boundary {boundary}: it "
            "has a transformer for either side, so take levels of one side, or sum two scores"
        )
    return other if low else pipe.transformer


def backbone_of(generator: nn.Module) -> Backbone:
    """The backbone of a complete generator; a `Backbone` is returned unchanged."""
    backbone = generator if isinstance(generator, Backbone) else shared_backbone(generator)
    backbone.require_whole()
    return backbone


def levels_by_name(
    backbone: Backbone, shares: Sequence[float], scheduler: Any
) -> dict[str, NoiseLevel]:
    """Name in details -> level.

    Raises:
        ValueError: for a repeated share, and as `noise_levels`.
    """
    if len(set(shares)) < len(shares):
        raise ValueError(f"`levels` must be different, got {list(shares)}")
    found = noise_levels(backbone, shares, scheduler)
    return {f"level {share:g}": level for share, level in zip(shares, found, strict=True)}
