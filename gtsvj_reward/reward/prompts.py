"""Whether a reward depends on the prompt."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.base import AnyReward, as_reward
from gtsvj_reward.reward.clips import Clips, Latents, clip_label


@dataclass(frozen=True, kw_only=True)
class PromptSensitivity:
    """Effect of another clip's prompt on the score of a clip."""

    ignores_prompt: bool
    """The reward takes no prompt, so nothing was run: the values below are 0 by construction."""
    mean_change: float
    """Mean |own - other|, in standard deviations of the own scores over the clips; 0 for a reward
    that ignores prompts."""
    share_own_higher: float
    """Share of clips that score higher with their own prompt, 0..1; equal scores do not count. 0.5
    is chance."""
    own: Float[Tensor, " clip"] | None = None
    """Scores with the clips' own prompts; None if nothing was run."""
    other: Float[Tensor, " clip"] | None = None
    """Scores with the prompts of other clips; None if nothing was run."""

    def text(self, what: str = "prompt") -> str:
        """For a model card; `what` was exchanged."""
        return (
            f"another clip's {what} moves the score by {self.mean_change:.2f} standard deviations; "
            f"{self.share_own_higher:.0%} of clips score higher under their own"
        )


def prompt_sensitivity(
    reward: AnyReward,
    latents: Latents,
    text: TextCondition,
    *,
    shift: int = 1,
    space: LatentSpace | None = None,
    fps: float | None = None,
    num_frames: int | None = None,
    normalize: bool = True,
) -> PromptSensitivity:
    """Score each clip with its own prompt and with that of another clip.

    Many published judges give nearly the same score for any prompt, so a policy may ignore its
    prompt. The paper's judge takes no prompt: for judges whose `text_input` is not `prompt`, and
    for combinations of them, nothing is run and the result says so. Other callables are always run.

    Args:
        reward: any callable with the signature of `GTSVJReward`.
        latents: at least two clips, with different prompts.
        text: their prompts, in the same order.
        shift: clip i gets the prompt of clip i + shift, cyclically.
        space: as for `GTSVJReward.details`.
        fps: as for `GTSVJReward.details`.
        num_frames: as for `GTSVJReward.details`.
        normalize: as for `GTSVJReward.details`; does not affect `mean_change`.

    Raises:
        ValueError: fewer than two clips, another number of prompts, a clip whose other prompt is
            its own, or own scores that are all the same; and what the reward refuses.
    """
    count = len(latents)
    if count < 2 or len(text.embeds) != count:
        raise ValueError(
            f"expected at least two clips and one prompt for each, got {count} clips and "
            f"{len(text.embeds)} prompts"
        )
    judge = as_reward(reward)
    if not judge.reads_text:
        return PromptSensitivity(ignores_prompt=True, mean_change=0.0, share_own_higher=0.0)
    rolled = text.rows(torch.arange(count).roll(-shift))
    unchanged = same_rows(text, rolled).nonzero().flatten().tolist()
    if unchanged:
        raise ValueError(
            f"{clip_label(unchanged[0])} has the prompt of "
            f"{clip_label((unchanged[0] + shift) % count)} "
            f"({len(unchanged)} of {count} clips get their own prompt again): give one clip per "
            "prompt, or a `shift` that passes the clips of one prompt"
        )
    clips = Clips(latents=latents, space=space, fps=fps, num_frames=num_frames)
    with torch.no_grad():
        own, other = (
            judge.score(replace(clips, text=condition), normalize).rewards
            for condition in (text, rolled)
        )
    return sensitivity_of(own, other)


def sensitivity_of(own: Float[Tensor, " clip"], other: Float[Tensor, " clip"]) -> PromptSensitivity:
    """The figures, from scores with the clips' own prompts and with those of other clips.

    Raises:
        ValueError: if all own scores are equal.
    """
    if (own == own[0]).all():
        raise ValueError(
            f"all {len(own)} clips score {own[0].item():g} with their own prompts: a change is "
            "measured in standard deviations of these scores, so give clips that differ"
        )
    change = (own.double() - other.double()).abs().mean() / own.double().std()
    return PromptSensitivity(
        ignores_prompt=False,
        mean_change=change.item(),
        share_own_higher=int((own > other).sum()) / len(own),
        own=own,
        other=other,
    )


def same_rows(first: TextCondition, second: TextCondition) -> Bool[Tensor, " clip"]:
    """Where two conditions, one made of rows of the other, have the same prompt."""
    same: Tensor = (first.embeds == second.embeds).flatten(1).all(dim=1)
    if first.mask is not None and second.mask is not None:
        same = same & (first.mask == second.mask).all(dim=1)
    if first.pooled is not None and second.pooled is not None:
        same = same & (first.pooled == second.pooled).all(dim=1)
    return same
