"""What a text encoder said of prompts, and for which family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class TextCondition:
    """What a text encoder produced for a batch of prompts."""

    embeds: Float[Tensor, "batch words text_dim"]
    """Token embeddings."""
    mask: Bool[Tensor, "batch words"] | None = None
    """True where a token is valid; None where the family attends to all of them."""
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    """Pooled projection, for families that take one."""
    family: str | None = None
    """Class name of the transformer whose pipeline encoded it; None: the caller vouches for it."""

    def rows(self, index: Tensor) -> "TextCondition":
        """The condition of some samples of the batch, by integer index."""
        return replace(
            self,
            embeds=self.embeds[index],
            mask=None if self.mask is None else self.mask[index],
            pooled=None if self.pooled is None else self.pooled[index],
        )

    def to(self, device: torch.device) -> "TextCondition":
        """The condition on a device."""
        return replace(
            self,
            embeds=self.embeds.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            pooled=None if self.pooled is None else self.pooled.to(device),
        )

    @classmethod
    def cat(cls, conditions: Sequence["TextCondition"]) -> "TextCondition":
        """Conditions behind one another.

        Raises:
            ValueError: for embeddings of different lengths or widths, and for some with a mask, a
                pooled projection or a family that others lack.
        """
        kinds = [text.kind for text in conditions]
        odd = [index for index, kind in enumerate(kinds) if kind != kinds[0]]
        if odd:
            raise ValueError(
                "prompts of one batch must be encoded alike (words, width, mask, pooled, family); "
                f"number 0 is {kinds[0]}, number {odd[0]} is {kinds[odd[0]]}"
            )
        masks = [text.mask for text in conditions if text.mask is not None]
        pooled = [text.pooled for text in conditions if text.pooled is not None]
        return cls(
            torch.cat([text.embeds for text in conditions]),
            torch.cat(masks) if masks else None,
            torch.cat(pooled) if pooled else None,
            conditions[0].family,
        )

    @property
    def kind(self) -> tuple[int, int, bool, bool, str | None]:
        """What conditions that belong to one batch have in common."""
        words, width = self.embeds.shape[1:]
        return words, width, self.mask is not None, self.pooled is not None, self.family
