"""safetensors bodies of HTTP requests: tensors and metadata from untrusted bytes.

The library checks offsets and lengths; names, types, sizes and the header's JSON are checked here
first, so any bytes are either read or rejected with a `MalformedError`.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gtsvj_reward.files import PICKLE_STARTS

MAX_HEADER_BYTES = 1 << 16
"""A header of ours has under 2,000; spaces with statistics per channel make it longer."""

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors names of the types that latents and embeddings may have."""


class MalformedError(ValueError):
    """A body that violates the protocol; the message says how."""


def write_body(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors body."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata=dict(metadata) or None)


def read_body(
    body: bytes, allowed: Mapping[str, tuple[int, frozenset[str]]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a body.

    Args:
        body: any bytes.
        allowed: tensor name -> its rank, and the safetensors names of the types it may have.

    Raises:
        MalformedError: for anything but a whole safetensors file of such tensors, none empty.
    """
    header = read_header(body)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise MalformedError("`__metadata__` must map names to strings")
    for name, entry in header.items():
        check_entry(name, entry, allowed)
    try:
        tensors = load(body)
    except SafetensorError as error:
        raise MalformedError(f"not a whole safetensors body: {error}") from error
    for name, tensor in tensors.items():
        # Any other byte is not a boolean to torch, but stays one in memory.
        if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
            raise MalformedError(f"`{name}` has bytes other than 0 and 1, which are not booleans")
    return tensors, metadata


def read_header(body: bytes) -> dict[str, Any]:
    """The JSON in front of the values.

    Raises:
        MalformedError: if there is none, or it is too long; a pickle is named as one.
    """
    if body.startswith(PICKLE_STARTS) and body[8:9] != b"{":
        raise MalformedError("the body looks like a pickle, expected safetensors: nothing was read")
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or 8 + length > len(body):
        raise MalformedError(
            f"a safetensors body of {len(body)} bytes cannot have a header of {length}: it is cut "
            "short, or not safetensors"
        )
    if length > MAX_HEADER_BYTES:
        raise MalformedError(f"the header has {length} bytes, at most {MAX_HEADER_BYTES} are read")
    header = read_json(body[8 : 8 + length], "the header")
    if not isinstance(header, dict):
        raise MalformedError(f"the header must be a JSON object, got {type(header).__name__}")
    return header


def read_json(text: bytes | str, what: str) -> Any:
    """A JSON value of bounded numbers without names that are given twice.

    Raises:
        MalformedError: for anything else.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=refuse_constant,
            parse_int=bounded_int,
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what} is not JSON that is read here: {error}") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; duplicate names are errors, since parsers treat them differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def refuse_constant(name: str) -> float:
    """NaN and infinity, which are not JSON."""
    raise ValueError(f"{name} is not JSON")


def bounded_int(digits: str) -> int:
    """An integer of at most 40 digits, as a float can hold."""
    if len(digits) > 40:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def check_entry(name: str, entry: Any, allowed: Mapping[str, tuple[int, frozenset[str]]]) -> None:
    """Refuse a tensor of another name, type or rank, and an empty one, before reading any."""
    if name not in allowed:
        raise MalformedError(f"unknown tensor {name[:80]!r}, expected some of {sorted(allowed)}")
    rank, dtypes = allowed[name]
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise MalformedError(f"tensor `{name}` needs a dtype and a shape in the header")
    if dtype not in dtypes:
        raise MalformedError(f"`{name}` must be of type {sorted(dtypes)}, got {dtype[:20]!r}")
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in shape)
    if len(shape) != rank or not whole or min(shape) < 1:
        raise MalformedError(f"`{name}` must have {rank} axes, none empty, got shape {shape[:10]}")
