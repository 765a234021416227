"""Running a diffusers `AutoencoderKLMochi` in tiles, and reading its identity."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.fingerprint import weights_fingerprint
from gtsvj_reward.latents.vae_family import (
    Tile,
    VAEFamily,
    check_frames,
    check_size,
    decoded_frames,
    posterior_latents,
)

PUBLISHED: dict[str, tuple[float, ...]] = {
    "encoder_block_out_channels": (64, 128, 256, 384),
    "decoder_block_out_channels": (128, 256, 512, 768),
    "layers_per_block": (3, 3, 4, 6, 3),
    "add_attention_block": (False, True, True, True, True),
    "temporal_expansions": (1, 2, 3),
    "spatial_expansions": (2, 2, 2),
    "latents_mean": (
        *(-0.06730895953510081, -0.038011381506090416, -0.07477820912866141),
        *(-0.05565264470995561, 0.012767231469026969, -0.04703542746246419),
        *(0.043896967884726704, -0.09346305707025976, -0.09918314763016893),
        *(-0.008729793427399178, -0.011931556316503654, -0.0321993391887285),
    ),
    "latents_std": (
        *(0.9263795028493863, 0.9248894543193766, 0.9393059390890617),
        *(0.959253732819592, 0.8244560132752793, 0.917259975397747),
        *(0.9294154431013696, 1.3720942357788521, 0.881393668867029),
        *(0.9168315692124348, 0.9185249279345552, 0.9274757570805041),
    ),
}
"""What the config of `genmo/mochi-1-preview` says of its VAE, besides a scaling factor of 1."""

SETTINGS = (
    "use_slicing",
    "use_tiling",
    "drop_last_temporal_frames",
    "tile_sample_min_height",
    "tile_sample_min_width",
    "tile_sample_stride_height",
    "tile_sample_stride_width",
)
"""Attributes of the VAE that a call here changes and puts back."""


def vae_fields(vae: Any) -> dict[str, Any]:
    """What a Mochi VAE's config says of its latent space.

    The pipeline unscales by `z * std / scaling_factor + mean`, so the factor, which is 1 in the
    published VAE, goes into the standard deviations.

    Raises:
        LatentSpaceError: for a mean without a standard deviation or the reverse, which the
            pipeline would ignore.
    """
    config = vae.config
    mean, std = config["latents_mean"], config["latents_std"]
    factor = float(config["scaling_factor"])
    if (mean is None) != (std is None):
        raise LatentSpaceError(
            f"this VAE's config has `latents_mean`={mean!r} and `latents_std`={std!r}, one of "
            "which Mochi's pipeline would ignore: set both or neither"
        )
    return {
        "channels": config["latent_channels"],
        "spatial_compression": prod(config["spatial_expansions"]),
        "temporal_compression": prod(config["temporal_expansions"]),
        "layout": "BCTHW",
        "scaling_factor": factor if mean is None else 1.0,
        "mean": None if mean is None else tuple(float(value) for value in mean),
        "std": None if std is None else tuple(float(value) / factor for value in std),
    }


def vae_name(vae: Any) -> str:
    """Name of a Mochi VAE: `mochi-1` for the published one, any other by its weights.

    Raises:
        ValueError: if the weights are needed and are on the meta device.
    """
    config = vae.config
    given = {key: config[key] or () for key in PUBLISHED}
    published = config["scaling_factor"] == 1 and all(
        len(given[key]) == len(values)
        and all(isclose(a, b, rel_tol=1e-6) for a, b in zip(given[key], values, strict=True))
        for key, values in PUBLISHED.items()
    )
    return (
        "mochi-1" if published else f"mochi-vae-{weights_fingerprint(vae.named_parameters())[:12]}"
    )


def tile_stride(side: int, tile: int) -> int:
    """Pixels from one tile to the next: three quarters of a tile, in whole latents."""
    return 3 * tile // (4 * side) * side


@contextmanager
def low_memory(vae: Any, tile: Tile | None) -> Iterator[None]:
    """Run the VAE one clip at a time and in tiles, then put its settings back."""
    before = {name: vae.__dict__[name] for name in SETTINGS}
    side = prod(vae.config["spatial_expansions"])
    try:
        vae.use_slicing = True
        vae.use_tiling = False
        vae.drop_last_temporal_frames = True
        if tile is not None:
            vae.enable_tiling(*tile, *(tile_stride(side, edge) for edge in tile))
        yield
    finally:
        vae.__dict__.update(before)


def check_encodable(spatial_compression: int, tile: Tile | None, height: int, width: int) -> None:
    """Refuse frame sizes of broken latents, and tiles that would not overlap by whole latents.

    Raises:
        ValueError: with the sizes that work.
    """
    check_size(spatial_compression, height, width)
    if tile is not None and (
        min(tile) < 2 * spatial_compression or any(edge % spatial_compression for edge in tile)
    ):
        raise ValueError(
            f"expected a tile (height, width) in multiples of {spatial_compression} pixels, at "
            f"least {2 * spatial_compression}, got {tile}; None never tiles"
        )


def encode_frames(
    frames: Float[Tensor, "batch time 3 height width"],
    vae: Any,
    generator: torch.Generator | None,
    tile: Tile | None,
) -> Float[Tensor, "batch steps channels rows columns"]:
    """Unscaled latents of clips, float32: the posterior's mode, or a sample given a generator.

    The encoder attends over time, so a clip is encoded in one piece: memory grows with its length,
    and only tiles bound it. With diffusers before 0.33 it runs under `torch.no_grad` only.

    Args:
        frames: in [0, 1].
        vae: an `AutoencoderKLMochi`; runs in its own dtype.
        generator: draws from the posterior; None takes its mode.
        tile: height and width of a tile in pixels; frames larger than it are encoded in tiles that
            overlap by a quarter. None encodes whole frames.

    Raises:
        ValueError: for frames outside [0, 1], or of a length or size that the VAE cannot hold.
    """
    fields = vae_fields(vae)
    check_encodable(fields["spatial_compression"], tile, frames.shape[3], frames.shape[4])
    check_frames(frames, fields["temporal_compression"])
    with low_memory(vae, tile):
        return posterior_latents(vae, frames, generator)


def decode_latents(
    latents: Float[Tensor, "batch steps channels rows columns"],
    vae: Any,
    tile: Tile | None,
) -> Float[Tensor, "batch time 3 height width"]:
    """Frames of unscaled latents, float32 in [0, 1]: `steps` latents give 6(steps - 1) + 1 frames.

    Args:
        latents: unscaled latents.
        vae: an `AutoencoderKLMochi`; runs in its own dtype, on a whole clip at a time.
        tile: height and width of a tile in pixels, as in encoding.
    """
    side = vae_fields(vae)["spatial_compression"]
    check_encodable(side, tile, latents.shape[3] * side, latents.shape[4] * side)
    with low_memory(vae, tile):
        return decoded_frames(vae, latents)


MOCHI_VAE = VAEFamily(
    fields=vae_fields,
    name=vae_name,
    encode=encode_frames,
    decode=decode_latents,
    tile=(256, 256),
    check=check_encodable,
)
"""`AutoencoderKLMochi`; `tile` is the size of a tile in pixels, 256 by 256 in diffusers."""
