"""UniRL: a reward service that reads the latents of a sample, and the backend that it holds.

Written against Tencent-Hunyuan/UniRL (`unirl/reward/service.py`, `base.py`, `types/sample.py`,
`types/segments/latent.py`). UniRL passes its backends decoded media only. `LatentRewardService`
reads the latents from the segment of a sample's last part. Both classes are named by `_target_` and
created on first access, since their base classes belong to UniRL.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient


def __getattr__(name: str) -> Any:
    """Create `GTSVJBackend` or `LatentRewardService` on first access."""
    makers = {"GTSVJBackend": backend_class, "LatentRewardService": service_class}
    if name in makers:
        return makers[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def backend_class() -> type:
    """The class `GTSVJBackend`.

    Raises:
        ImportError: if UniRL is not installed.
    """
    from unirl.reward.base import RewardBackend  # type: ignore[import-not-found]
    from unirl.types.reward import RewardResponse  # type: ignore[import-not-found]

    class GTSVJBackend(RewardBackend):
        """Scores decoded videos, and latents for a `LatentRewardService`.

        `config:` in the recipe contains fields of `ScorerConfig`. The judge is placed on
        `base_device` unless `config` names a device.
        """

        input_kind = "video"

        def __init__(self, *, config: Mapping[str, Any], base_device: str) -> None:
            self.scorer = load_scorer(config, base_device)
            super().__init__(model_name="gtsvj")
            self.device = config.get("device") or base_device

        def compute_rewards(self, request: Any) -> Any:
            """Scores of the decoded videos of a request; one that cannot be scored is an error."""
            start = time.time()
            scores = score_videos(self.scorer, request.videos, request.prompts)
            count = len(scores.rewards)
            return RewardResponse(
                rewards=scores.rewards.tolist(),
                component_rewards=scores.numbers(),
                successes=[True] * count,
                errors=[None] * count,
                compute_time=time.time() - start,
            )

        def compute_rewards_differentiable(
            self, media_tensor: Tensor, prompts: Sequence[str], records: Any = None
        ) -> Tensor:
            """Differentiable scores of decoded videos (sample, 3, time, height, width)."""
            del records
            frames = media_tensor.float().transpose(1, 2)
            return self.scorer.score_frames(frames, prompts=prompts).rewards

        def is_available(self) -> bool:
            """Always: the judge is loaded by the constructor."""
            return True

        def offload(self) -> None:
            """Move judge and VAE to the CPU."""
            self.scorer.to("cpu")

        def onload(self) -> None:
            """Move them back."""
            self.scorer.to(self.device)

    GTSVJBackend.__qualname__ = "GTSVJBackend"  # found, and pickled, by this name
    return GTSVJBackend


@cache
def service_class() -> type:
    """The class `LatentRewardService`.

    Raises:
        ImportError: if UniRL is not installed, or is a release that has no samples yet.
    """
    from unirl.distributed.group.dispatch import (  # type: ignore[import-not-found]
        Dispatch,
        distributed,
    )
    from unirl.reward.service import RewardService  # type: ignore[import-not-found]

    try:
        import unirl.types.sample  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "this release of UniRL scores tracks (`req`, `track`): `LatentRewardService` needs one "
            "with `unirl.types.sample`, of July 2026 or later. `GTSVJBackend` works with both"
        ) from error

    class LatentRewardService(RewardService):
        """Scores the clean latents of a sample's last part, with a `GTSVJBackend` as backend.

        UniRL's settings for rewards of text (`truncated_reward`, `overlong_...`) are accepted and
        have no effect.
        """

        def __init__(
            self,
            backend: Any,
            truncated_reward: str = "zero",
            overlong_buffer_len: int = 4096,
            overlong_penalty_factor: float = 1.0,
            require_prompt_video: bool = False,
        ) -> None:
            super().__init__(
                backend,
                truncated_reward=truncated_reward,
                overlong_buffer_len=overlong_buffer_len,
                overlong_penalty_factor=overlong_penalty_factor,
            )
            if require_prompt_video:
                raise ValueError(
                    "`require_prompt_video` asks for a reward that compares with a video in the "
                    "prompt, which no judge reads: set it to false, and add such a reward"
                )
            if backend.scorer.space is None:
                raise ValueError(
                    "`LatentRewardService` scores latents: name the generator as `latents_of` in "
                    "the backend's config, or use unirl.reward.service.RewardService for videos"
                )

        @distributed(dispatch_mode=Dispatch.DP_SCATTER)  # type: ignore[untyped-decorator]
        def score_and_attach(self, sample: Any) -> Any:
            """A copy of the sample whose last part has its rewards and their components."""
            *before, last = sample.parts
            scorer = self.backend.scorer
            prompts = None if scorer.encode is None else prompts_of(sample.turns())
            return sample.with_parts([*before, scored_part(scorer, last, prompts)])

    LatentRewardService.__qualname__ = "LatentRewardService"
    return LatentRewardService


def load_scorer(config: Mapping[str, Any], base_device: str) -> ClipScorer:
    """The scorer of a recipe, in this process or on a server."""
    return ScorerConfig.from_dict({"device": base_device, **config}).load(ScoreClient)


@torch.no_grad()
def score_videos(
    scorer: ClipScorer, videos: list[Tensor] | None, prompts: Sequence[str] | None = None
) -> RewardOutput:
    """Scores of UniRL's decoded videos (3, time, height, width), colours in [0, 1].

    Raises:
        ValueError: for a request without videos, and a scorer without a VAE.
    """
    if videos is None:
        raise ValueError("expected a request with videos: the judge scores no images and no text")
    frames = [video.float().transpose(0, 1) for video in videos]
    return scorer.score_frames(frames, prompts=prompts)


@torch.no_grad()
def scored_part(scorer: ClipScorer, part: Any, prompts: Sequence[str] | None = None) -> Any:
    """A copy of a part with `rewards` and `component_rewards`, from its clean latents.

    Raises:
        RuntimeError: if the part already has rewards.
        ValueError: for a part without clean latents of its samples.
    """
    if part.rewards is not None:
        raise RuntimeError("the sample's last part has rewards already: score each sample once")
    latents = clean_latents(part.segment)
    if len(latents) != len(part.sample_ids):
        raise ValueError(f"got latents of {len(latents)} clips for {len(part.sample_ids)} samples")
    scores = scorer.score_latents(latents, "BCTHW", prompts=prompts)
    made_of = {name: values.cpu() for name, values in scores.components.items()}
    return replace(part, rewards=scores.rewards.cpu(), component_rewards=made_of)


def prompts_of(turns: Sequence[Any]) -> list[str]:
    """The prompts of a sample, one per generated clip: its last turn that is text.

    Raises:
        ValueError: if no turn is.
    """
    from unirl.types.primitives import Texts  # type: ignore[import-not-found]

    found = [turn.content.texts for turn in turns if isinstance(turn.content, Texts)]
    if not found:
        raise ValueError("the sample has no turn with a text, which would be the prompt")
    return list(found[-1])


def clean_latents(segment: Any) -> Float[Tensor, "sample channel time height width"]:
    """The latents at the end of the schedule, in the generator's scale.

    Args:
        segment: of a diffusion part: `latents` (sample, stored step, channel, time, height,
            width), `indices` of the stored steps, `sigmas` of the schedule.

    Raises:
        ValueError: if there are none, or the last ones stored are not those of the last step.
    """
    if segment is None or segment.latents is None or segment.indices is None:
        raise ValueError(
            "the sample's last part carries no latents: `LatentRewardService` needs a diffusion one"
        )
    last, end = int(segment.indices[-1]), len(segment.sigmas) - 1
    if last != end:
        raise ValueError(
            f"the last latents stored are those of step {last}, the schedule ends at {end}: they "
            "are noisy. Use a rollout that stores the clean ones, as UniRL's video stages do"
        )
    clean: Tensor = segment.latents[:, -1]
    return clean
