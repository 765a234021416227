"""A random projection of features, block by block, in which ridge regression is solved."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.training.closed_form.ridge import Fit


class BlockProjection:
    """Adds up the features of each block with random signs in fewer bins (count sketch).

    Inner products of clips are kept up to a relative error of about sqrt(2 / bins). A readout of
    the bins is one of the features: see `unfold`.

    Args:
        widths: of the blocks.
        total: bins of all blocks together; a block that has fewer features than its share stays
            as it is.
        seed: of bins and signs.
    """

    def __init__(self, widths: Sequence[int], total: int, *, seed: int) -> None:
        if total < len(widths):
            raise ValueError(
                f"`projection_width` must be at least {len(widths)}, one for each tap, got {total}"
            )
        self.widths = shared_out(widths, total)
        generator = torch.Generator().manual_seed(seed)
        bins, signs = [], []
        for width, kept, start in zip(widths, self.widths, starts(self.widths), strict=True):
            drawn = torch.randint(kept, (width,), generator=generator)
            flips = torch.randint(2, (width,), generator=generator) * 2 - 1
            whole = width == kept
            bins.append(start + (torch.arange(width) if whole else drawn))
            signs.append(torch.ones_like(flips) if whole else flips)
        self.bins, self.signs = torch.cat(bins), torch.cat(signs).double()

    def __call__(self, features: Float[Tensor, "row feature"]) -> Float[Tensor, "row bin"]:
        """Projected features, float64; linear in them."""
        out = torch.zeros(len(features), sum(self.widths), dtype=torch.float64)
        return out.index_add_(1, self.bins, features * self.signs)

    def unfold(self, fit: Fit) -> Fit:
        """The readout of features that is a readout of the bins."""
        return Fit(fit.weight[:, self.bins] * self.signs, fit.free, fit.bias)


def shared_out(widths: Sequence[int], total: int) -> tuple[int, ...]:
    """Bins of each block: the same for all, apart from blocks that need fewer."""
    left, found = total, dict.fromkeys(range(len(widths)), 0)
    for done, block in enumerate(sorted(found, key=lambda block: widths[block])):
        found[block] = min(widths[block], left // (len(widths) - done))
        left -= found[block]
    return tuple(found.values())


def starts(widths: Sequence[int]) -> list[int]:
    """Where each block begins."""
    return [sum(widths[:block]) for block in range(len(widths))]
