"""A judge's posterior over the scores of all clips, in a form that is fast to query."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.judge.readout import MomentReadout
from gtsvj_reward.labelling.choice import Pair, information


@dataclass
class Beliefs:
    """A judge's posterior of the scores of clips.

    The difference of two clips has the variance |v_a - v_b|², with v the clips' vectors.
    """

    scores: Float[Tensor, " clip"]
    """In logits."""
    vectors: Float[Tensor, "clip inside"] | None
    """None for a judge without a posterior, such as one that has seen no label."""
    ratings: dict[str, Float[Tensor, " clip"]]
    """Aspect -> rating on its own scale; empty for a judge of comparisons."""
    labels: int
    """Labels that the judge has seen here."""
    rating_precision: float = 0.0
    """One over the variance of the noise of a rating."""

    def gaps(self, pairs: Sequence[Pair]) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """Means and variances of the score of the first clip minus that of the second.

        The variance is 0 for a judge without a posterior.
        """
        first, second = torch.tensor(pairs).T
        means = self.scores[first] - self.scores[second]
        if self.vectors is None:
            return means, torch.zeros_like(means)
        return means, (self.vectors[first] - self.vectors[second]).square().sum(dim=1)

    def probability(self, first: int, second: int) -> float:
        """Probability that the first clip is better, given no tie."""
        mean, variance = (value.item() for value in self.gaps([(first, second)]))
        return 1 / (1 + math.exp(-mean / math.sqrt(1 + math.pi * variance / 8)))

    def most_telling(self, pairs: Sequence[Pair]) -> Pair:
        """The pair with the most informative outcome."""
        return pairs[int(information(*self.gaps(pairs)).argmax())]

    def least_known(self, clips: Sequence[int]) -> int:
        """The clip whose score has the largest variance."""
        if self.vectors is None:
            raise ValueError("this judge has no posterior: choose at random")
        return clips[int(self.vectors[list(clips)].square().sum(dim=1).argmax())]

    def expect(self, first: int, second: int) -> None:
        """Condition on a pending answer: it reduces the variance, whatever the answer.

        The posterior's precision grows by the curvature p (1 - p) of the loss along the difference
        of the two clips. Without this the next pair would ask the same question again.
        """
        if self.vectors is not None:
            p = self.probability(first, second)
            self.shrink(self.vectors[first] - self.vectors[second], p * (1 - p))

    def expect_rating(self, clip: int) -> None:
        """Condition on a pending rating."""
        if self.vectors is not None:
            self.shrink(self.vectors[clip].clone(), self.rating_precision)

    def shrink(self, direction: Float[Tensor, " inside"], precision: float) -> None:
        """Condition all vectors on a noisy look along a direction."""
        length = direction.square().sum()
        if self.vectors is None or not length > 0:
            return
        # |v|² -> |v|² - precision (v.g)² / (1 + precision g.g), for every v at once.
        share = 1 - 1 / (1 + precision * length).sqrt()
        along = self.vectors @ direction / length
        self.vectors = self.vectors - share * along[:, None] * direction


def beliefs_of(
    judge: VideoJudge, features: Iterable[Float[Tensor, "_ feature"]], labels: int
) -> Beliefs:
    """A moment judge's posterior for clips, from their features.

    Scores of a judge that was fitted to comparisons are logits; those of others are divided by the
    judge's own standard deviation of scores, for want of a better unit.

    Args:
        judge: of readout `moments`, fitted to something.
        features: of the clips, in parts; see `FeatureCache`.
        labels: those it was fitted to here.
    """
    head, config = judge.head, judge.config
    if not isinstance(head, MomentReadout):
        raise TypeError(f"expected a moment readout, got {type(head).__name__}")
    scale = 1.0 if config.stage == "preference" else 1 / (config.reward_std or 1.0)
    noise = judge.score_noise()
    scores, vectors, aspects = [], [], []
    with torch.no_grad():
        for part in features:
            moments = part.to(head.mean.device)
            out = judge.from_moments(moments[:, None])
            scores.append(scale * out.scores[:, 0].double().cpu())
            if noise is not None:
                spread = scale * math.sqrt(noise)
                vectors.append(spread * posterior_vectors(head, moments).cpu())
            if out.aspects is not None:
                aspects.append(out.aspects[:, 0].double().cpu())
    table = torch.cat(aspects) if aspects else None
    return Beliefs(
        scores=torch.cat(scores),
        vectors=torch.cat(vectors) if vectors else None,
        ratings={
            aspect.name: aspect.low + (aspect.high - aspect.low) * table[:, column]
            for column, aspect in enumerate(config.aspects)
            if table is not None
        },
        labels=labels,
        rating_precision=0.0 if noise is None else 1 / (noise * scale**2),
    )


def posterior_vectors(
    head: MomentReadout, features: Float[Tensor, "clip feature"]
) -> Float[Tensor, "clip inside"]:
    """Vectors of clips whose differences have, squared, the posterior variance over the noise."""
    if head.projection is None:
        raise ValueError("this judge keeps no posterior")
    rows = head.standardised(features)
    inputs = rows.new_ones(len(rows), 1)
    if head.energy is not None:
        inputs = torch.cat([inputs, head.energy(rows)], dim=1)
    design = torch.cat([head.projection(rows), inputs], dim=1).double()
    return design @ head.root.double().T
