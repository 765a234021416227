"""Precision of losses, and their reduction over samples."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Reduction = Literal["none", "mean"]


def at_least_float32(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Half-precision values in float32; others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def check_reduction(reduction: str) -> None:
    """Reject a reduction other than "none" and "mean".

    Raises:
        ValueError: with what was given.
    """
    if reduction not in ("none", "mean"):
        raise ValueError(f'`reduction` must be "none" or "mean", got {reduction!r}')
