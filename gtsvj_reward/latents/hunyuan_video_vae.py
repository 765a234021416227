"""Running a diffusers `AutoencoderKLHunyuanVideo` in tiles, and reading its identity."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.fingerprint import weights_fingerprint
from gtsvj_reward.latents.vae_family import (
    Tile,
    VAEFamily,
    check_frames,
    check_size,
    decoded_frames,
    posterior_latents,
)

DEFAULT_TILE = (256, 256)
"""Height and width of a tile in pixels; what diffusers uses for the published VAE."""

_PUBLISHED_NAME = "hunyuan-video"
_PUBLISHED = {
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "latent_channels": 16,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 4,
}
_PUBLISHED_SCALING = 0.476986

_SETTINGS = (
    "use_slicing",
    "use_tiling",
    "use_framewise_encoding",
    "use_framewise_decoding",
    "tile_sample_min_height",
    "tile_sample_min_width",
    "tile_sample_min_num_frames",
    "tile_sample_stride_height",
    "tile_sample_stride_width",
    "tile_sample_stride_num_frames",
)
_TILE_FRAMES, _STRIDE_FRAMES = 16, 12


def vae_fields(vae: Any) -> dict[str, Any]:
    """What a HunyuanVideo VAE's config says of its latent space."""
    config = vae.config
    return {
        "channels": config["latent_channels"],
        "spatial_compression": int(config["spatial_compression_ratio"]),
        "temporal_compression": int(config["temporal_compression_ratio"]),
        "layout": "BCTHW",
        "scaling_factor": float(config["scaling_factor"]),
    }


def vae_name(vae: Any) -> str:
    """Name of a HunyuanVideo VAE: the published one by its config, any other by its weights.

    Raises:
        ValueError: if the weights are needed and are on the meta device.
    """
    config = vae.config
    published = all(
        (tuple(config[key]) if isinstance(value, tuple) else config[key]) == value
        for key, value in _PUBLISHED.items()
    )
    if published and isclose(config["scaling_factor"], _PUBLISHED_SCALING, rel_tol=1e-6):
        return _PUBLISHED_NAME
    return f"hunyuan-video-vae-{weights_fingerprint(vae.named_parameters())[:12]}"


def tile_stride(side: int, spatial_compression: int) -> int:
    """Pixels from one tile to the next: three quarters of a tile's side, in whole latents.

    192 for the 256 pixels of diffusers' own tiles.
    """
    return side * 3 // 4 // spatial_compression * spatial_compression


@contextmanager
def _low_memory(vae: Any, tile: Tile | None) -> Iterator[None]:
    """Run the VAE one clip at a time and in tiles, then put its settings back.

    Tiles in time are always those that diffusers starts with, whatever was set on this VAE, so that
    a clip has the same latents everywhere.
    """
    before = {name: vae.__dict__[name] for name in _SETTINGS}
    try:
        vae.use_slicing = True
        vae.use_tiling = False
        vae.use_framewise_encoding = vae.use_framewise_decoding = True
        vae.tile_sample_min_num_frames = _TILE_FRAMES
        vae.tile_sample_stride_num_frames = _STRIDE_FRAMES
        if tile is not None:
            strides = [tile_stride(side, vae.spatial_compression_ratio) for side in tile]
            vae.enable_tiling(
                tile_sample_min_height=tile[0],
                tile_sample_min_width=tile[1],
                tile_sample_stride_height=strides[0],
                tile_sample_stride_width=strides[1],
            )
        yield
    finally:
        vae.__dict__.update(before)


def check_encodable(spatial_compression: int, tile: Tile | None, height: int, width: int) -> None:
    """Refuse frame sizes of broken latents, and tiles that are not whole latents that overlap.

    Raises:
        ValueError: with the sizes that work.
    """
    check_size(spatial_compression, height, width)
    if tile is None:
        return
    if any(side % spatial_compression or side < 2 * spatial_compression for side in tile):
        raise ValueError(
            f"expected a tile (height, width) in multiples of {spatial_compression} pixels, each "
            f"at least {2 * spatial_compression}, got {tile}; diffusers uses {DEFAULT_TILE}, None "
            "never tiles"
        )


def encode_frames(
    frames: Float[Tensor, "batch time 3 height width"],
    vae: Any,
    generator: torch.Generator | None,
    tile: Tile | None,
) -> Float[Tensor, "batch steps channels rows columns"]:
    """Unscaled latents of clips, float32: the posterior's mode, or a sample given a generator.

    Args:
        frames: in [0, 1].
        vae: an `AutoencoderKLHunyuanVideo`; runs in its own dtype. Clips of more than 16 frames are
            encoded in overlapping parts of 17, blended as diffusers does by default.
        generator: draws from the posterior; None takes its mode.
        tile: height and width of a tile in pixels; frames larger than it are encoded in
            overlapping tiles. None encodes whole frames.

    Raises:
        ValueError: for frames outside [0, 1], or of a length or size that the VAE cannot hold.
    """
    fields = vae_fields(vae)
    check_encodable(fields["spatial_compression"], tile, frames.shape[3], frames.shape[4])
    check_frames(frames, fields["temporal_compression"])
    with _low_memory(vae, tile):
        return posterior_latents(vae, frames, generator)


def decode_latents(
    latents: Float[Tensor, "batch steps channels rows columns"],
    vae: Any,
    tile: Tile | None,
) -> Float[Tensor, "batch time 3 height width"]:
    """Frames of unscaled latents, float32 in [0, 1]: `steps` latents give 4(steps - 1) + 1 frames.

    Args:
        latents: unscaled latents.
        vae: an `AutoencoderKLHunyuanVideo`; runs in its own dtype. More than 4 latents are decoded
            in overlapping parts of 5, blended as diffusers does by default.
        tile: height and width of a tile in pixels, as in encoding.
    """
    side = vae_fields(vae)["spatial_compression"]
    check_encodable(side, tile, latents.shape[3] * side, latents.shape[4] * side)
    with _low_memory(vae, tile):
        return decoded_frames(vae, latents)


HUNYUAN_VIDEO_VAE = VAEFamily(
    fields=vae_fields,
    name=vae_name,
    encode=encode_frames,
    decode=decode_latents,
    tile=DEFAULT_TILE,
    check=check_encodable,
)
"""`AutoencoderKLHunyuanVideo`; `tile` is the size of a tile in pixels."""
