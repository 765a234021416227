"""Choice of the next clips.

Compared clips: the pair whose outcome is most informative about the judge (Houlsby, Huszár,
Ghahramani and Lengyel 2011, "Bayesian Active Learning for Classification and Preference Learning",
arXiv:1112.5745, eq. 3). With the difference d of two scores in logits, N(m, v) under the posterior,
and a probit instead of the logistic curve, it is the entropy of the outcome minus its expected
entropy given d:

    I = h(Φ(m / √(v + 1))) - C / √(v + C²) · exp(-m² / (2 (v + C²))),   C = √(π ln 2 / 2)

with h the entropy in bits. It is large where the outcome is undecided (m near 0) because the judge
is unsure (v large), not because the clips are equally good. Rated clips: the clip whose score has
the largest variance, which is the same rule for a rating with noise of one size.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Pair = tuple[int, int]
"""Two clips by number, the smaller one first."""

CANDIDATES = 2000
"""Pairs among which the best one is looked for."""

PROBIT = math.sqrt(math.pi / 8)
"""A logistic curve at x is nearly the normal distribution at this times x."""

SHARPNESS = math.sqrt(math.pi * math.log(2) / 2)
"""C of the rule."""


def information(
    mean: Float[Tensor, " pair"], variance: Float[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Expected information of a comparison in bits; see above.

    Args:
        mean: of the difference of scores, in logits.
        variance: of that difference.
    """
    m, v = mean * PROBIT, variance * PROBIT**2
    first = torch.special.ndtr(m / (v + 1).sqrt())
    entropy = (torch.special.entr(first) + torch.special.entr(1 - first)) / math.log(2)
    square = v + SHARPNESS**2
    bits: Tensor = entropy - SHARPNESS / square.sqrt() * torch.exp(-m.square() / (2 * square))
    return bits


def draw_pairs(
    groups: Sequence[Sequence[int]],
    taken: Collection[Pair],
    count: int,
    generator: torch.Generator,
) -> list[Pair]:
    """Different pairs within groups, each as likely as any other; fewer if there are no more.

    Args:
        groups: clips that are compared with one another.
        taken: pairs to leave out.
        count: how many.
        generator: of the draws.
    """
    usable = [group for group in groups if len(group) > 1]
    sizes = torch.tensor([len(group) for group in usable])
    pairs = sizes * (sizes - 1) // 2
    total = int(pairs.sum()) if usable else 0
    if total <= max(4 * count, 2 * len(taken) + count, CANDIDATES):
        every = [
            (min(a, b), max(a, b))
            for group in usable
            for place, a in enumerate(group)
            for b in group[:place]
        ]
        free = [pair for pair in every if pair not in taken]
        order = torch.randperm(len(free), generator=generator)[:count]
        return [free[index] for index in order.tolist()]
    # At least half of all pairs are free, so that a few rounds are enough.
    ends, found = pairs.cumsum(0), dict[Pair, None]()
    while len(found) < count:
        drawn = torch.randint(total, (2 * count,), generator=generator)
        shares = torch.rand(2, 2 * count, generator=generator)
        where = torch.searchsorted(ends, drawn, right=True)
        first = (shares[0] * sizes[where]).long()
        second = (shares[1] * (sizes[where] - 1)).long()
        second += second >= first
        for group, a, b in zip(where.tolist(), first.tolist(), second.tolist(), strict=True):
            one, other = usable[group][a], usable[group][b]
            pair = (min(one, other), max(one, other))
            if pair not in taken:
                found[pair] = None
    return list(found)[:count]


def draw_clips(
    clips: Sequence[int], taken: Collection[int], count: int, generator: torch.Generator
) -> list[int]:
    """Different clips, each as likely as any other; fewer if there are no more."""
    free = [clip for clip in clips if clip not in taken]
    return [free[i] for i in torch.randperm(len(free), generator=generator)[:count].tolist()]


def without(groups: Mapping[str, Sequence[int]], broken: Collection[int]) -> list[list[int]]:
    """Groups without clips that cannot be judged."""
    return [[clip for clip in group if clip not in broken] for group in groups.values()]
