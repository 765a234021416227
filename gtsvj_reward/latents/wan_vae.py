"""Running a diffusers `AutoencoderKLWan` in tiles, and reading its identity."""

from collections.abc import Iterator
from contextlib import contextmanager
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

_BOTH = {
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
}
# fmt: off
PUBLISHED: dict[str, dict[str, Any]] = {
    "wan-2.1": {
        **_BOTH, "base_dim": 96, "decoder_base_dim": None, "z_dim": 16, "is_residual": False,
        "in_channels": 3, "out_channels": 3, "patch_size": None,
        "latents_mean": [
            -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
        ],
        "latents_std": [
            2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
            3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
        ],
    },
    "wan-2.2-5b": {
        **_BOTH, "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True,
        "in_channels": 12, "out_channels": 12, "patch_size": 2,
        "latents_mean": [
            -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
            -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
            -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
            -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
            -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
            0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
        ],
        "latents_std": [
            0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
            0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
            0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
            0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
            0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
            0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
        ],
    },
}
# fmt: on
"""Name of a space -> the fields of the published config that tell its VAE from others."""


def vae_fields(vae: Any) -> dict[str, Any]:
    """What a Wan VAE's config says of its latent space.

    Raises:
        LatentSpaceError: for a config that contradicts itself, or a diffusers that is too old.
    """
    config = vae.config
    spatial = config.get("scale_factor_spatial")
    if spatial is None or vae.spatial_compression_ratio != spatial:
        raise LatentSpaceError(
            "this diffusers does not know the compression of Wan VAEs, and would cut wrong tiles: "
            "install diffusers 0.36 or newer"
        )
    temporal = config["scale_factor_temporal"]
    built = (
        2 ** len(config["temperal_downsample"]) * (config["patch_size"] or 1),
        2 ** sum(config["temperal_downsample"]),
    )
    # diffusers cuts clips into groups of four frames, whatever the config says.
    if (spatial, temporal) != built or temporal != 4:
        raise LatentSpaceError(
            f"this VAE's config says that it compresses space by {spatial} and time by {temporal}, "
            f"its layers by {built[0]} and {built[1]}: expected the same numbers, and 4 in time"
        )
    if config["latents_mean"] is None or config["latents_std"] is None:
        raise LatentSpaceError(
            "this VAE's config has no `latents_mean` or no `latents_std`, which Wan pipelines "
            "need: take the config that was published with it"
        )
    return {
        "channels": config["z_dim"],
        "spatial_compression": spatial,
        "temporal_compression": temporal,
        "layout": "BCTHW",
        "mean": tuple(float(value) for value in config["latents_mean"]),
        "std": tuple(float(value) for value in config["latents_std"]),
    }


def vae_name(vae: Any) -> str:
    """Name of a Wan VAE: a published one by its config, any other by its weights.

    `wan-2.1` is also the VAE of Wan 2.2's models of 14B, `wan-2.2-5b` that of the 5B model.

    Raises:
        ValueError: if the weights are needed and are on the meta device.
    """
    for name, published in PUBLISHED.items():
        given = {key: vae.config[key] for key in published}
        if {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()} == published:
            return name
    return f"wan-vae-{weights_fingerprint(vae.named_parameters())[:12]}"


def tile_and_stride(tile: Tile, spatial_compression: int) -> tuple[int, int, int, int]:
    """Tile and stride (height, width, height, width) in pixels, all in whole latents.

    A tile is rounded down to whole latents, and the next one starts after at most three quarters
    of it, as with diffusers' own 256 and 192 pixels.
    """
    whole = [side // spatial_compression for side in tile]
    strides = [side * 3 // 4 for side in whole]
    height, width, down, right = (spatial_compression * side for side in (*whole, *strides))
    return height, width, down, right


@contextmanager
def _low_memory(vae: Any, sizes: tuple[int, int, int, int] | None) -> Iterator[None]:
    """Run the VAE one clip at a time and in tiles, then put its settings back."""
    before = {
        name: vae.__dict__[name]
        for name in (
            "use_slicing",
            "use_tiling",
            "tile_sample_min_height",
            "tile_sample_min_width",
            "tile_sample_stride_height",
            "tile_sample_stride_width",
        )
    }
    try:
        vae.use_slicing = True
        vae.use_tiling = False
        if sizes is not None:
            vae.enable_tiling(*sizes)
        yield
    finally:
        vae.__dict__.update(before)


def check_encodable(spatial_compression: int, tile: Tile | None, height: int, width: int) -> None:
    """Refuse frame sizes of broken latents, and tiles too small to overlap.

    Raises:
        ValueError: with the sizes that work.
    """
    check_size(spatial_compression, height, width)
    if tile is not None and min(tile) < 4 * spatial_compression:
        raise ValueError(
            f"expected a tile (height, width) of {4 * spatial_compression} pixels or more, so that "
            f"tiles overlap by whole latents, got {tile}; None never tiles"
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
        vae: an `AutoencoderKLWan`; runs in its own dtype, 4 frames at a time.
        generator: draws from the posterior; None takes its mode.
        tile: height and width of a tile in pixels, rounded down to whole latents; larger frames
            are encoded in overlapping tiles. None encodes whole frames.

    Raises:
        ValueError: for frames outside [0, 1], or of a length or size that the VAE cannot hold.
    """
    fields = vae_fields(vae)
    side = fields["spatial_compression"]
    check_encodable(side, tile, frames.shape[3], frames.shape[4])
    check_frames(frames, fields["temporal_compression"])
    sizes = None
    if tile is not None:
        # diffusers tiles what it encodes after the patches of the VAE were cut: not in pixels.
        patch = vae.config["patch_size"] or 1
        height, width, down, right = tile_and_stride(tile, side)
        sizes = (height // patch, width // patch, down // patch, right // patch)
    with _low_memory(vae, sizes):
        return posterior_latents(vae, frames, generator)


def decode_latents(
    latents: Float[Tensor, "batch steps channels rows columns"],
    vae: Any,
    tile: Tile | None,
) -> Float[Tensor, "batch time 3 height width"]:
    """Frames of unscaled latents, float32 in [0, 1]: `steps` latents give 4(steps - 1) + 1 frames.

    The VAE decodes one latent after the other, so a clip's frames do not depend on later latents.

    Args:
        latents: unscaled latents.
        vae: an `AutoencoderKLWan`; runs in its own dtype.
        tile: height and width of a tile in pixels, as in encoding.
    """
    side = vae_fields(vae)["spatial_compression"]
    check_encodable(side, tile, latents.shape[3] * side, latents.shape[4] * side)
    sizes = None if tile is None else tile_and_stride(tile, side)
    with _low_memory(vae, sizes):
        return decoded_frames(vae, latents)


WAN_VAE = VAEFamily(
    fields=vae_fields,
    name=vae_name,
    encode=encode_frames,
    decode=decode_latents,
    tile=(256, 256),
    check=check_encodable,
)
"""`AutoencoderKLWan`; `tile` is the size of a tile in pixels."""
