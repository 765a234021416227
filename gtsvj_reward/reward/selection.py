"""Which aspects make the score, and how that score is normalised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import JudgeConfig


@dataclass(frozen=True, kw_only=True)
class AspectSelection:
    """A score from some aspects: the sum of weight times range-normalised aspect."""

    weights: tuple[float, ...]
    """One weight for each aspect of the judge, in its order; 0 leaves the aspect out."""

    def score(self, aspects: Float[Tensor, "*batch aspect"]) -> Float[Tensor, "*batch"]:
        """The score of range-normalised aspects."""
        return aspects @ self.weights_like(aspects)

    def weights_like(self, aspects: Tensor) -> Float[Tensor, " aspect"]:
        """The weights on the aspects' device; this synchronises, so call it once."""
        return aspects.new_tensor(self.weights)

    def statistics(self, config: JudgeConfig) -> tuple[float, float]:
        """Mean and standard deviation of the score over the judge's calibration set.

        They follow from the means and covariances that the checkpoint carries.

        Raises:
            ValueError: if it carries none, or if the score is constant there.
        """
        if config.aspect_mean is None or config.aspect_covariance is None:
            raise ValueError(
                "this judge has no means and covariances of its aspects to normalise a "
                "selection by: pass normalize=False, or train it with a trainer, which measures "
                "them"
            )
        weights = torch.tensor(self.weights, dtype=torch.float64)
        mean = weights @ torch.tensor(config.aspect_mean, dtype=torch.float64)
        covariance = torch.tensor(config.aspect_covariance, dtype=torch.float64)
        variance = (weights @ covariance @ weights).item()
        if not variance > 0:
            raise ValueError(
                f"this selection of aspects is constant over {config.reward_data}: it cannot be "
                "normalised; pass normalize=False"
            )
        return mean.item(), math.sqrt(variance)


def statistics_of(config: JudgeConfig, selection: AspectSelection | None) -> tuple[float, float]:
    """Mean and standard deviation that scores are normalised by.

    Raises:
        ValueError: if the checkpoint has none.
    """
    if selection is not None:
        return selection.statistics(config)
    mean, std = config.reward_mean, config.reward_std
    if mean is None or std is None:
        raise ValueError(
            "this judge has no `reward_mean` and `reward_std` to normalise by: "
            "pass normalize=False, or train it with a trainer, which measures them"
        )
    return mean, std


def select_aspects(
    config: JudgeConfig,
    aspects: Sequence[str] | None,
    weights: Mapping[str, float] | None,
) -> AspectSelection | None:
    """The requested selection; None: the judge's own score.

    Args:
        config: of the judge.
        aspects: names; the score is the mean of these range-normalised aspects.
        weights: name -> weight; the score is the weighted sum.

    Raises:
        ValueError: for both arguments, unknown or repeated names, non-finite weights, only zero
            weights, or a judge without aspects.
    """
    if aspects is None and weights is None:
        return None
    if aspects is not None and weights is not None:
        raise ValueError("pass `aspects` or `weights`, not both: weights name the aspects already")
    known = [aspect.name for aspect in config.aspects]
    if not known:
        raise ValueError(
            f"a judge of stage {config.stage!r} has no aspects to choose from: it gives one score"
        )
    if isinstance(aspects, str):
        raise ValueError(f"`aspects` is a list of names, got the string {aspects!r}")
    names = list(aspects if aspects is not None else weights or ())
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) != len(names):
        raise ValueError(f"expected different names out of {known}, got {names}")
    chosen = dict.fromkeys(names, 1 / len(names)) if weights is None else dict(weights)
    if not all(math.isfinite(weight) for weight in chosen.values()) or not any(chosen.values()):
        raise ValueError(f"weights must be finite and not all zero, got {chosen}")
    return AspectSelection(weights=tuple(float(chosen.get(name, 0.0)) for name in known))
