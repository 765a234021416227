"""Prompts of a policy's clips, and their embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition


@dataclass(frozen=True)
class Prompts:
    """Prompts and their embeddings."""

    texts: tuple[str, ...]
    embeds: Float[Tensor, "clip token dim"]
    """Of the texts."""
    null: Float[Tensor, "1 token dim"]
    """Of the empty prompt, for guidance."""
    mask: Bool[Tensor, "clip token"] | None = None
    """True where a token is valid, for families that mask some (LTX, HunyuanVideo, Mochi)."""
    null_mask: Bool[Tensor, "1 token"] | None = None
    """Mask of the empty prompt."""
    pooled: Float[Tensor, "clip pooled_dim"] | None = None
    """Pooled projection of the texts, for families that take one (HunyuanVideo)."""

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def of(
        cls, texts: Sequence[str], rows: Sequence[TextCondition], null: TextCondition
    ) -> "Prompts":
        """Prompts from the embeddings of each text and of the empty one."""
        text = TextCondition.cat(rows)
        return cls(tuple(texts), text.embeds, null.embeds, text.mask, null.mask, text.pooled)

    def to(self, device: torch.device) -> "Prompts":
        """Copy to a device."""
        return replace(
            self,
            embeds=self.embeds.to(device),
            null=self.null.to(device),
            mask=None if self.mask is None else self.mask.to(device),
            null_mask=None if self.null_mask is None else self.null_mask.to(device),
            pooled=None if self.pooled is None else self.pooled.to(device),
        )

    def twice(self) -> "Prompts":
        """The prompts, repeated once."""
        return replace(
            self,
            texts=self.texts * 2,
            embeds=torch.cat([self.embeds] * 2),
            mask=None if self.mask is None else torch.cat([self.mask] * 2),
            pooled=None if self.pooled is None else torch.cat([self.pooled] * 2),
        )

    def condition(self, *, guided: bool = False) -> TextCondition:
        """Text input of a transformer; with guidance, as many empty prompts come first.

        Raises:
            ValueError: with guidance, for families whose text is pooled, which have it built in.
        """
        if not guided:
            return TextCondition(self.embeds, self.mask, self.pooled)
        if self.pooled is not None:
            raise ValueError("a model with pooled text is told its guidance: no empty prompt")
        mask = self.mask
        if mask is not None and self.null_mask is not None:
            mask = torch.cat([self.null_mask.expand_as(mask), mask])
        return TextCondition(torch.cat([self.null.expand_as(self.embeds), self.embeds]), mask)
