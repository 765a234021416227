"""Latent spaces that arrive over the network: read strictly, and compared with the judge's."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.serving.bodies import MalformedError, read_json


def is_whole(value: Any) -> bool:
    """An integer that a size can be."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def is_number(value: Any) -> bool:
    """A finite number."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def is_text(value: Any) -> bool:
    """A short string."""
    return isinstance(value, str) and 0 < len(value) <= 200


def are_numbers(value: Any) -> bool:
    """A list of finite numbers."""
    return isinstance(value, list) and all(is_number(item) for item in value)


def is_range(value: Any) -> bool:
    """Two finite numbers."""
    return are_numbers(value) and len(value) == 2


def is_layout(value: Any) -> bool:
    """An order of axes that a generator can have."""
    return value in ("BTCHW", "BCTHW")


def optional(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """That, or null."""
    return lambda value: value is None or check(value)


FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "id": is_text,
    "channels": is_whole,
    "spatial_compression": is_whole,
    "temporal_compression": is_whole,
    "layout": is_layout,
    "scaling_factor": is_number,
    "shift_factor": optional(is_number),
    "mean": optional(are_numbers),
    "std": optional(are_numbers),
    "patch_size_t": optional(is_whole),
    "vae": optional(is_text),
    "expected_std": optional(is_range),
}
"""Field of `LatentSpace` -> whether a JSON value can be its."""


def read_space(text: str) -> LatentSpace:
    """The space in what `LatentSpace.to_dict` gave as JSON.

    Raises:
        MalformedError: if it is none.
    """
    values = read_json(text, "`latent_space`")
    if not isinstance(values, dict):
        raise MalformedError(f"`latent_space` must be a JSON object, got {type(values).__name__}")
    wrong = sorted(name for name, check in FIELDS.items() if not check(values.get(name)))
    if wrong:
        raise MalformedError(f"`latent_space` has no usable value for {wrong}")
    try:
        return LatentSpace.from_dict(values)
    except ValueError as error:
        raise MalformedError(f"`latent_space` is none: {error}") from error


def check_name(judge: LatentSpace, space_id: str) -> None:
    """Refuse latents whose space is only named, by another name than the judge's."""
    if space_id != judge.id:
        raise LatentSpaceError(
            f"expected latents of {judge.title()}, got latents of {space_id[:80]!r}: use latents "
            "of the expected VAE. If both are one space under two names, send the whole space as "
            "`latent_space`"
        )
