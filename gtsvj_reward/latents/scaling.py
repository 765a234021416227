"""Statistics of channels, as they are applied to latents."""

from collections.abc import Sequence

import torch
from torch import Tensor


def per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    """One number per channel (channel, 1, 1), in the type and on the device of latents."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
