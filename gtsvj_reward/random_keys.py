"""Random draws that depend on a key, such as (seed, epoch, index), and on nothing else."""

import hashlib

import torch


def keyed_generator(*key: int) -> torch.Generator:
    """CPU generator whose stream depends only on the key.

    Training draws everything about a sample from `keyed_generator(seed, epoch, index)`, so that
    what a sample gets depends neither on workers and prefetching nor on where a run was resumed.
    The seed is the first 63 bits of SHA-256 over the numbers in decimal, joined by commas: (1, 23)
    and (12, 3) differ, and so do (1,) and (1, 0). PyTorch's CPU generator reads the low 32 bits of
    a seed: among a million keys about a hundred pairs share their stream. This is acceptable for
    training, but not for uses that need unique streams.

    Args:
        *key: whole numbers of any size or sign, at least one.

    Raises:
        ValueError: no key.
    """
    if not key:
        raise ValueError("`keyed_generator` needs at least one number, e.g. (seed, epoch, index)")
    digest = hashlib.sha256(",".join(f"{number:d}" for number in key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def keyed_order(length: int, *key: int) -> list[int]:
    """The numbers below `length` in an order that depends only on the key."""
    return torch.randperm(length, generator=keyed_generator(*key)).tolist()
