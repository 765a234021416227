"""Fit a moment judge to clips and labels in one call; takes seconds once features are cached."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from gtsvj_reward.judge import Aspect, Geometry, JudgeConfig, VideoJudge
from gtsvj_reward.latents.statistics import LatentStatistics
from gtsvj_reward.losses import PairLoss
from gtsvj_reward.training.closed_form.examples import (
    Compared,
    Contrast,
    Rated,
)
from gtsvj_reward.training.closed_form.features import FeatureCache, reading_id
from gtsvj_reward.training.closed_form.parts import Parts

logger = logging.getLogger(__name__)


def refit(
    judge: VideoJudge,
    cache: FeatureCache,
    *,
    contrast: Sequence[Contrast] = (),
    ratings: Sequence[Rated] = (),
    aspects: Sequence[Aspect] = (),
    comparisons: Sequence[Compared] = (),
    loss: PairLoss | None = None,
    beta: float = 0.2,
    geometry: Geometry | None = None,
    latent_statistics: LatentStatistics | None = None,
    seed: int = 0,
    projection_width: int | None = None,
) -> VideoJudge:
    """Fit a judge to clips and labels; `judge` itself does not change.

    Clips without labels give the energy, ratings give aspects, comparisons weight the aspects or,
    without ratings, make the score from the moments themselves. Any of the three is enough for a
    judge. New data of a kind replaces the old data of that kind: to withdraw a label, pass the
    others. Later stages build on earlier ones: new ratings keep the energy, new comparisons keep
    energy and aspects. What builds on a stage that is fitted anew is dropped with a warning, unless
    its data is given as well. Refits with one cache give each warning once.

    Args:
        judge: of readout `moments`; fresh, or fitted before.
        cache: features of clips under it, or under a judge that reads clips alike.
        contrast: positives and negatives; none keeps the energy that the judge has, if any.
        ratings: rated clips.
        aspects: what the ratings are of, with scales.
        comparisons: compared clips.
        loss: of comparisons; needed with them.
        beta: of Eq. 4.
        geometry: what clips these are; None keeps the judge's.
        latent_statistics: how their latents are spread; likewise.
        seed: of the projection in which the uncertainty is kept.
        projection_width: features after a random projection in which energies and aspects are
            fitted, for more clips than fit in memory: each process then holds the features of its
            own clips, ten folds of clips take the place of single groups left out, and no error is
            shared by the ratings of a group. None: all features.

    Returns:
        A judge on the same backbone. `config.training` records the data, the penalties and the
        leave-group-out errors.

    Raises:
        ValueError: if no data is given, the labels carry no information, or the cache is of a judge
            that reads clips in another way.
    """
    if judge.config.readout != "moments":
        raise ValueError("`refit` is for judges with readout='moments'")
    if not (contrast or ratings or comparisons):
        raise ValueError("nothing to fit: give `contrast`, `ratings` or `comparisons`")
    if comparisons and projection_width is not None:
        raise ValueError(
            "`projection_width` is for energies and aspects, comparisons are fitted to all "
            "features: leave it out, or fit them by a call of their own"
        )
    if cache.reading != reading_id(judge):
        raise ValueError(
            "the cache has features of a judge that reads clips in another way (base weights, "
            "LoRA, taps, pooling, stride, timestep, text or noise levels): make one of this judge, "
            "`FeatureCache(judge, folder)`"
        )
    for part in dropped(judge.config, contrast=contrast, ratings=ratings, comparisons=comparisons):
        warn_once(cache, f"the judge that is refitted loses {part}")
    if ratings and len(ratings) < len(aspects):
        warn_once(
            cache,
            "%d clips are rated, for %d aspects: too few to tell the aspects' errors apart, and "
            "metrics of such a judge say little; rate more clips",
            len(ratings),
            len(aspects),
        )
    parts = Parts(judge, cache, seed, projection_width)
    if not contrast:
        parts.keep(aspects=not ratings)
    if contrast:
        parts.fit_energy(contrast, beta)
    if ratings:
        parts.fit_aspects(ratings, aspects)
    if comparisons:
        if loss is None:
            raise ValueError("comparisons need a `loss`")
        parts.fit_preference(comparisons, loss)
    fitted = parts.judge_of(geometry or judge.config.geometry)
    if latent_statistics is not None:
        fitted.config = replace(fitted.config, latent_statistics=latent_statistics)
    return fitted


def dropped(
    config: JudgeConfig,
    *,
    contrast: Sequence[Contrast],
    ratings: Sequence[Rated],
    comparisons: Sequence[Compared],
) -> list[str]:
    """Which parts of a judge build on a stage that is fitted anew, and how to keep them."""
    parts = []
    if config.aspects and contrast and not ratings:
        names = ", ".join(aspect.name for aspect in config.aspects)
        parts.append(f"its aspects ({names}); pass their `ratings` as well to keep them")
    if config.stage == "preference" and (contrast or ratings) and not comparisons:
        what = "weights of the aspects" if config.aspects else "score"
        parts.append(f"its {what}, from comparisons; pass these as well to keep them")
    return parts


def warn_once(cache: FeatureCache, text: str, *values: int) -> None:
    """Log a warning, unless a fit to the same cache has: labelling refits again and again."""
    if text not in cache.warned:
        cache.warned.add(text)
        logger.warning(text, *values)
