"""Prompts of a policy's clips, and their embeddings."""

from dataclasses import dataclass, replace

import torch

from gtsvj_reward.backbones import TextCondition


@dataclass(frozen=True)
class Prompts:
    """Prompts and their embeddings."""

    texts: tuple[str, ...]
    text: TextCondition
    """What the encoder said of them, one row each."""
    null: TextCondition
    """What it said of the empty prompt, for guidance; one row."""

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> "Prompts":
        """Copy to a device."""
        return replace(self, text=self.text.to(device), null=self.null.to(device))

    def twice(self) -> "Prompts":
        """The prompts, repeated once."""
        both = TextCondition.cat([self.text, self.text])
        return replace(self, texts=self.texts * 2, text=both)

    def condition(self, *, guided: bool = False) -> TextCondition:
        """Text input of a transformer; with guidance, as many empty prompts come first.

        Raises:
            ValueError: with guidance, for families whose text is pooled, which have it built in.
        """
        if not guided:
            return self.text
        if self.text.pooled is not None:
            raise ValueError("a model with pooled text takes guidance as an input: no empty prompt")
        return TextCondition.cat([self.null] * len(self) + [self.text])
