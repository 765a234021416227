"""The format of `config.json`: its version, and what files of earlier versions mean."""

import json
from typing import Any

FORMAT_VERSION = 8

ADDED: dict[int, dict[str, Any]] = {
    2: {
        "token_pooling": "mean",
        "time_pooling": "mean",
        "energy_width": None,
        "energy_pooling": "mean",
        "aspect_weights": None,
        "score_bias": None,
        "aspect_mean": None,
        "aspect_covariance": None,
    },
    3: {"latent_pooling": 1, "temporal_stride": 1},
    4: {
        "readout": "mlp",
        "taps": None,
        "has_energy": False,
        "penalties": None,
        "projection_seed": 0,
    },
    5: {"surprise": None, "noise_levels": (), "noise_seed": 0},
    6: {"latent_statistics": None},
    7: {"prompt_level": None, "prompt_dropout": 0.0},
    8: {"image_input": "none", "image_level": None},
}
"""Format version -> the fields that it added, with their values in checkpoints of earlier ones."""


def values_of(text: str) -> dict[str, Any]:
    """The fields in the text of a `config.json`, with those that its version did not know yet.

    Raises:
        ValueError: if it is not JSON, of a version that is not known, or of a judge that is no
            longer read.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    version = values.pop("format_version", None) if isinstance(values, dict) else None
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"format_version is {version!r}, this release reads {FORMAT_VERSION}: "
            "is it the config.json of a judge, and is the package recent enough?"
        )
    for later, added in ADDED.items():
        values = {**added, **values} if later > version else values
    if values.pop("text_tokens", None) is not None:
        raise ValueError(
            "`text_tokens` is set: judges with a shortened null text are no longer read, since "
            "the transformer's own forward takes no such text. Train it again without"
        )
    return dict(values)
