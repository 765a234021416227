"""Inputs of metrics: tensors, numpy arrays, lists, columns of a table."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

Scores = Float[Tensor, " pair"] | Num[np.ndarray, " pair"] | Sequence[float | int]
"""One number per pair."""

Labels = Int[Tensor, " pair"] | Int[np.ndarray, " pair"] | Sequence[int]
"""+1, -1 or 0 per pair."""


def as_tensor(values: object, name: str) -> Tensor:
    """The numbers as a tensor on the CPU or where they are; lists in float64 or int64.

    Raises:
        TypeError: for what holds anything but numbers.
    """
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(
            f"`{name}` must hold numbers (a tensor, an array or a list of them), got "
            f"{type(values).__name__} of {array.dtype}"
        )
    return torch.from_numpy(array.copy()) if array.size else torch.zeros(array.shape)
