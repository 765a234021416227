"""How well scores agree with shares of votes, for pairs whose label is a probability."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class VoteAgreement:
    """Agreement with votes, and what it rests on."""

    agreement: float
    """Weighted mean, over the pairs, of the share of votes for the clip that the scores put in
    front; equal scores get one half."""
    ceiling: float
    """Agreement of scores that follow the majority in every pair, the maximum with split votes."""
    pairs: int
    """All of them."""
    weight: float
    """How many comparisons the pairs count as."""


def vote_agreement(
    differences: Float[Tensor, " pair"],
    probabilities: Float[Tensor, " pair"],
    weights: Float[Tensor, " pair"],
) -> VoteAgreement:
    """Share of votes that scores agree with.

    With d the difference of two scores, p the share of votes for the first clip and w the weight,

        agreement = sum w a / sum w,   a = p where d > 0, 1 - p where d < 0, 1/2 where d = 0
        ceiling   = sum w max(p, 1 - p) / sum w

    Random scores tend to one half, and so do constant scores. It does not jump where votes are
    nearly even, as an accuracy on sides does, and each vote counts.

    Args:
        differences: score of the first clip minus that of the second.
        probabilities: that the first clip is better, 0..1; a tie of people is one half.
        weights: above 0.

    Raises:
        ValueError: for no pairs, shapes that differ, or numbers that are not finite or out of
            range; with how many.
    """
    shapes = [tuple(values.shape) for values in (differences, probabilities, weights)]
    if len(set(shapes)) > 1 or differences.ndim != 1 or len(differences) == 0:
        raise ValueError(
            "expected a difference, a probability and a weight per pair, at least one pair; got "
            f"shapes {shapes}"
        )
    d, p, w = differences.double(), probabilities.double(), weights.double()
    sound = d.isfinite() & (p >= 0) & (p <= 1) & (w > 0) & w.isfinite()
    if not sound.all():
        first = int((~sound).nonzero()[0])
        raise ValueError(
            f"pair {first} has the difference {d[first]:g}, the probability {p[first]:g} and the "
            f"weight {w[first]:g} ({int((~sound).sum())} of {len(d)} pairs): expected a finite "
            "difference, 0..1, and a finite weight above 0"
        )
    share = w / w.sum()
    agreed = torch.where(d > 0, p, torch.where(d < 0, 1 - p, torch.full_like(p, 0.5)))
    return VoteAgreement(
        agreement=(share * agreed).sum().item(),
        ceiling=(share * torch.maximum(p, 1 - p)).sum().item(),
        pairs=len(d),
        weight=w.sum().item(),
    )
