"""Candidates of one prompt: generate them, score them, keep the best."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import AnyReward, RewardOutput, as_reward, text_of
from gtsvj_reward.sampling.pipelines import OutputType, as_clips, decode_clip, pipeline_kind
from gtsvj_reward.sampling.scoring import Scoring

Kept = Literal["winners", "all"]

RESERVED = (
    "prompt",
    "num_frames",
    "height",
    "width",
    "num_inference_steps",
    "guidance_scale",
    "generator",
    "latents",
    "num_videos_per_prompt",
    "output_type",
    "return_dict",
)
"""Arguments of a pipeline that have a keyword of their own here, or that we set."""
EMBEDS = ("prompt_embeds", "negative_prompt_embeds")
"""Arguments of a pipeline with one row per clip; given with one row, for the one prompt."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to a pipeline, without the seed."""

    prompt: str | None
    """One prompt for all candidates; None with `prompt_embeds` in `call_arguments`."""
    num_frames: int
    """Frames of a clip."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    num_inference_steps: int
    """Denoising steps."""
    guidance_scale: float | None = None
    """None: the pipeline's default."""
    call_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the pipeline's call."""

    def __post_init__(self) -> None:
        """Reject arguments that are given twice, and prompts for more than one clip."""
        if not isinstance(self.prompt, str | None):
            raise TypeError(
                f"`prompt` is one prompt, of which all candidates are made, got {self.prompt!r}: "
                "call this once for each prompt"
            )
        taken = sorted(set(self.call_arguments) & set(RESERVED))
        if taken:
            raise ValueError(
                f"`call_arguments` must not hold {', '.join(taken)}: use the keyword of that name, "
                "if there is one; the others are set here"
            )
        if (self.prompt is None) == (self.call_arguments.get("prompt_embeds") is None):
            raise ValueError(
                "expected a prompt, or prompt=None with `prompt_embeds` in `call_arguments`; got "
                f"{'neither' if self.prompt is None else 'both'}"
            )
        for name in EMBEDS:
            embeds = self.call_arguments.get(name)
            if embeds is not None and len(embeds) != 1:
                raise ValueError(
                    f"`{name}` must have one row, for the one prompt, got {tuple(embeds.shape)}"
                )

    def arguments(self, pipe: Any, clips: int) -> dict[str, Any]:
        """The arguments with which a pipeline is called for a batch of candidates."""
        given = {**pipeline_kind(pipe).arguments(pipe), **self.call_arguments}
        for name in EMBEDS:
            if given.get(name) is not None:
                given[name] = given[name].repeat(clips, 1, 1)
        if self.prompt is not None:
            given["prompt"] = [self.prompt] * clips
        if self.guidance_scale is not None:
            given["guidance_scale"] = self.guidance_scale
        return {
            **given,
            "num_frames": self.num_frames,
            "height": self.height,
            "width": self.width,
            "num_inference_steps": self.num_inference_steps,
            "output_type": "latent",
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class BestOfN:
    """Candidates of one prompt, their scores, and the best of them decoded."""

    frames: list[Any]
    """The winners' frames, best first: each as one item of the pipeline's own `frames`."""
    winners: tuple[int, ...]
    """The winners' indices among the candidates, best first; equal scores: lower index first."""
    scores: Float[Tensor, " candidate"]
    """Scores of all candidates, from their latents; float32, on the CPU."""
    seeds: tuple[int, ...]
    """Seed of each candidate: the pipeline with `generator=torch.Generator().manual_seed(seed)`
    makes it again."""
    latents: Float[Tensor, "clip time channel height width"]
    """Latents of the winners, in their order, or of all candidates in theirs; without padding."""
    details: RewardOutput | None
    """All scores with their trajectories; None for a reward without them."""

    def __repr__(self) -> str:
        best = [round(self.scores[winner].item(), 4) for winner in self.winners]
        return f"BestOfN({len(self.scores)} candidates, winners {self.winners}, scores {best})"


def check_counts(n: int, keep: int, batch_size: int) -> None:
    """Reject counts that do not fit together."""
    if not 1 <= keep <= n or batch_size < 1:
        raise ValueError(
            f"expected 1 <= keep <= n and batch_size >= 1, got n={n}, keep={keep}, "
            f"batch_size={batch_size}"
        )


def batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive runs of at most `size` indices."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator per candidate, on the CPU: numbers do not depend on batch or device."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def scoring_for(
    pipe: Any,
    reward: AnyReward,
    space: LatentSpace,
    request: Request,
    fps: float | None,
    text: TextCondition | None,
    normalize: bool,
) -> Scoring:
    """How the candidates of a request are scored; a reward that reads prompts gets the request's.

    Raises:
        LatentSpaceError: for a judge of another space; now, not after the first candidates.
        ValueError: for a number of frames that the latents cannot hold, or more than one prompt.
    """
    space.latent_frames(request.num_frames)
    as_reward(reward).refuse_foreign(space, "those that the pipeline generates")
    if text is not None and len(text.embeds) != 1:
        raise ValueError(
            f"`text` must have one row, for the one prompt, got {len(text.embeds)} rows"
        )
    if text is None and request.prompt is not None and as_reward(reward).wants_text:
        text = text_of(pipe, [request.prompt])
    return Scoring(
        reward=reward,
        space=space,
        num_frames=request.num_frames,
        fps=fps,
        text=text,
        normalize=normalize,
    )


class Scored(NamedTuple):
    """Finished candidates with their scores."""

    latents: Float[Tensor, "candidate time channel height width"]
    """Without padding."""
    output: RewardOutput
    """Of all of them."""


def scored(
    make: Callable[[Sequence[int]], Tensor],
    scoring: Scoring,
    indices: Sequence[int],
    batch_size: int,
) -> Scored:
    """Make and score candidates batch by batch, so that a reward that rejects clips does so early.

    Args:
        make: indices of a batch -> latents in the pipeline's layout.
        scoring: how to score them.
        indices: of the candidates to make.
        batch_size: candidates in a batch.
    """
    clips, outputs = [], []
    for batch in batches(indices, batch_size):
        latents = make(batch)
        with torch.no_grad():
            outputs.append(scoring.details(latents, [f"candidate {index}" for index in batch]))
        clips.append(as_clips(scoring.space, latents, scoring.num_frames))
    return Scored(torch.cat(clips), RewardOutput.cat(outputs))


def best_of(
    pipe: Any,
    space: LatentSpace,
    candidates: Scored,
    *,
    seeds: Sequence[int],
    keep: int,
    output_type: OutputType,
    keep_latents: Kept,
) -> BestOfN:
    """Decode the `keep` best candidates, one after the other."""
    latents, output = candidates
    scores = output.rewards.cpu()
    winners = best_first(scores)[:keep]
    frames = [decode_clip(pipe, space, latents[index], output_type) for index in winners]
    pipe.maybe_free_model_hooks()
    return BestOfN(
        frames=frames,
        winners=tuple(winners),
        scores=scores,
        seeds=tuple(seeds),
        latents=latents if keep_latents == "all" else latents[winners],
        details=output if output.trajectory else None,
    )


def best_first(scores: Float[Tensor, " candidate"]) -> list[int]:
    """Indices by falling score; of equal scores, the lower index first."""
    order: list[int] = scores.sort(descending=True, stable=True).indices.tolist()
    return order
