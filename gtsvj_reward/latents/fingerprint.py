"""Short content hashes that say whether two sets of weights are the same."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

SLICE_ELEMENTS = 1024
"""Elements of each tensor that are hashed: the first half and the last half of this number."""


def weights_fingerprint(named_tensors: Iterable[tuple[str, Tensor]], settings: str = "") -> str:
    """SHA-256 over settings, names, shapes and fixed slices of tensors, 64 hexadecimal digits.

    The slices are the first and last 512 elements in row-major order, rounded to bfloat16, so that
    float32 weights and the same weights cast to bfloat16 have one fingerprint. Weights that went
    from float32 through float16 differ: they were rounded twice.

    Args:
        named_tensors: names and tensors in any order; the order does not matter.
        settings: what else decides the outcome, as text.

    Raises:
        ValueError: if a tensor is on the meta device, where it has no values.
    """
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(named_tensors, key=lambda item: item[0]):
        if tensor.is_meta:
            raise ValueError(
                f"cannot fingerprint `{name}`: it is on the meta device, load it first"
            )
        flat = tensor.detach().reshape(-1)
        half = SLICE_ELEMENTS // 2
        parts = (flat,) if flat.numel() <= SLICE_ELEMENTS else (flat[:half], flat[-half:])
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        for part in parts:
            rounded = part.to(torch.bfloat16).to("cpu", torch.float32).contiguous()
            digest.update(rounded.numpy().tobytes())
    return digest.hexdigest()
