"""A readout of what a generator predicts early: fitted to predictions, not to finished clips."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.training.closed_form.features import FeatureCache, Load
from gtsvj_reward.training.closed_form.parts import Parts


def fit_level(
    judge: VideoJudge,
    cache: FeatureCache,
    *,
    predicted: Sequence[Load],
    scores: Float[Tensor, " clip"],
    groups: Sequence[str],
    seed: int = 0,
) -> VideoJudge:
    """A judge of the clean latents x̂₀ that a generator predicts at one level of noise.

    Mid-sampling predictions are smoother than clips, so a readout fitted to clips does not fit them
    well. This one reads the same moments and is fitted to a reward's scores of the finished clips.
    It needs no labels: sample clips, keep x̂₀ of a step, score the finished clips.

    Args:
        judge: of readout `moments`, whose way of reading is kept; it stays as it is.
        cache: features of clips under it.
        predicted: x̂₀ of each clip at the step.
        scores: of the finished clips, by any reward.
        groups: of the clips, usually their prompts; those of one are left out together.
        seed: of the projection in which the uncertainty is kept.

    Raises:
        ValueError: for another readout, fewer than three groups, or scores that are all the same.
    """
    if judge.config.readout != "moments":
        raise ValueError("`fit_level` is for judges with readout='moments'")
    parts = Parts(judge, cache, seed)
    parts.fit_targets(
        predicted, scores.detach().double().cpu()[:, None], groups, (), what="predicted"
    )
    return parts.judge_of(judge.config.geometry)
