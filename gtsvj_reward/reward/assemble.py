"""Builds a reward's output from the judge's outputs."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import Aspect, JudgeOutput
from gtsvj_reward.reward.clips import require_finite
from gtsvj_reward.reward.output import RewardOutput
from gtsvj_reward.reward.selection import AspectSelection


def assemble(
    outputs: Sequence[JudgeOutput],
    aspects: Sequence[Aspect],
    selection: AspectSelection | None,
    scale: tuple[float, float],
    *,
    notes: tuple[str | None, ...] = (),
    noise: float | None = None,
    pessimism: float = 0.0,
    device: torch.device | None = None,
) -> RewardOutput:
    """Scores, aspects and trajectories of some clips; `require_finite_scores` comes after it.

    Args:
        outputs: per clip, scores (step,) and aspects (step, aspect) or None.
        aspects: names and scales; empty for a discriminator.
        selection: replaces the judge's own score, if given.
        scale: mean and standard deviation for normalising scores.
        notes: per clip, copied to the output.
        noise: variance of a rating of the raw score about its expectation; None: unknown.
        pessimism: standard deviations to subtract from each normalised score.
        device: of the results if there are no clips.
    """
    trajectory = score_steps(outputs, selection)
    raw = per_clip([steps.mean() for steps in trajectory], device)
    per_step = [aspect_steps(output, aspects) for output in outputs]
    mean, std = scale
    rewards, uncertainty = (raw - mean) / std, deviations(outputs, noise, std, device)
    if uncertainty is not None and pessimism:
        rewards = rewards - pessimism * uncertainty
    return RewardOutput(
        rewards=rewards,
        raw=raw,
        trajectory=trajectory,
        parts={
            aspect.name: per_clip([steps[aspect.name].mean() for steps in per_step], device)
            for aspect in aspects
        },
        aspect_trajectory=per_step,
        notes=notes,
        uncertainty=uncertainty,
    )


def require_finite_scores(out: RewardOutput, names: Sequence[str] | None = None) -> RewardOutput:
    """The output, if its scores are finite.

    Raises:
        NonFiniteError: for a score that is NaN or infinite, with the clip's index.
    """
    hint = ": its latents are finite, so the judge overflowed; try dtype=torch.bfloat16 or float32"
    require_finite(out.raw, "the score of", "is", names, hint)
    return out


def per_clip(values: Sequence[Tensor], device: torch.device | None) -> Float[Tensor, " clip"]:
    """One number per clip, of any number of clips."""
    return torch.stack(list(values)) if values else torch.zeros(0, device=device)


def deviations(
    outputs: Sequence[JudgeOutput], noise: float | None, std: float, device: torch.device | None
) -> Float[Tensor, " clip"] | None:
    """Posterior standard deviation of each clip's normalised score; None if unknown."""
    leverages = [output.leverage for output in outputs if output.leverage is not None]
    if noise is None or len(leverages) < len(outputs):
        return None
    deviation: Tensor = (noise * per_clip(leverages, device).float()).sqrt() / std
    return deviation


def score_steps(
    outputs: Sequence[JudgeOutput], selection: AspectSelection | None
) -> list[Float[Tensor, " _"]]:
    """Per clip, the raw score of each step, in float32."""
    aspects = [output.aspects for output in outputs if output.aspects is not None]
    if selection is None or not aspects:
        return [output.scores.float() for output in outputs]
    weights = selection.weights_like(aspects[0])
    return [(per_step @ weights).float() for per_step in aspects]


def aspect_steps(output: JudgeOutput, aspects: Sequence[Aspect]) -> dict[str, Float[Tensor, " _"]]:
    """Aspects of each step of a clip, on their own scales, in float32."""
    if output.aspects is None:
        return {}
    columns = output.aspects.float().unbind(dim=1)
    return {
        aspect.name: aspect.low + (aspect.high - aspect.low) * column
        for aspect, column in zip(aspects, columns, strict=True)
    }


def check_pessimism(pessimism: float, noise: float | None) -> float:
    """The pessimism, if it is in range and the judge has an uncertainty."""
    if not 0 <= pessimism < math.inf:
        raise ValueError(f"`pessimism` must be >= 0 and finite, got {pessimism}")
    if pessimism and noise is None:
        raise ValueError(
            "`pessimism` needs a judge that gives its uncertainty: one with readout='moments' that "
            "was fitted to ratings or comparisons. For others use `RewardEnsemble(pessimism=)`"
        )
    return pessimism
