"""Names of dtypes, as settings, flags and files hold them."""

import torch

DTYPES = ("float32", "bfloat16", "float16")
"""What weights can be in."""


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as a file holds it, e.g. `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name, e.g. of `bfloat16`.

    Raises:
        ValueError: if torch has none of that name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"no dtype is called {name!r}: expected one of {', '.join(DTYPES)}")
    return found
