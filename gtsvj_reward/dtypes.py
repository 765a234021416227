"""Names of dtypes, as settings, flags and files hold them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch

DTYPES = ("float32", "bfloat16", "float16")
"""dtypes of weights."""


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as a file holds it, e.g. `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """The dtype of a name, e.g. of `bfloat16`; a dtype as it is.

    Raises:
        ValueError: if torch has no such dtype.
    """
    found = name if isinstance(name, torch.dtype) else getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"unknown dtype {name!r}: expected one of {', '.join(DTYPES)}")
    return found


def weights_in(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The dtype argument of diffusers' `from_pretrained`, which 0.40 renamed."""
    release = tuple(int(part) for part in version("diffusers").split(".")[:2])
    return {"dtype" if release >= (0, 40) else "torch_dtype": dtype}


@contextmanager
def built_in_float32() -> Iterator[None]:
    """Build modules in float32, independent of `torch.set_default_dtype`.

    The default applies to all threads of the process; it is restored at the end.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
