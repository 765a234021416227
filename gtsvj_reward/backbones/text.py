"""Prompt embeddings, and the family they are for."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.backbones.condition import Condition


@dataclass(frozen=True)
class TextCondition(Condition):
    """What a text encoder produced for a batch of prompts."""

    what: ClassVar[str] = "prompts"
    embeds: Float[Tensor, "batch words text_dim"]
    """Token embeddings."""
    mask: Bool[Tensor, "batch words"] | None = None
    """True where a token is valid; None where the family attends to all of them."""
    pooled: Float[Tensor, "batch pooled_dim"] | None = None
    """Pooled projection, for families that take one."""
    family: str | None = None
    """Class name of the transformer whose pipeline encoded it; None: not checked."""
