"""Running a diffusers `AutoencoderKLCogVideoX` in tiles, and reading its identity."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose
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

DEFAULT_TILE = (240, 360)
"""Height and width of a tile in pixels; what diffusers uses for the published CogVideoX VAE."""

_OVERLAP = (1 / 6, 1 / 5)
_PUBLISHED = {
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 3,
    "latent_channels": 16,
    "temporal_compression_ratio": 4,
}
_PUBLISHED_SCALING = {"cogvideox-2b": 1.15258426, "cogvideox-5b": 0.7}


def vae_fields(vae: Any) -> dict[str, Any]:
    """What a CogVideoX VAE's config says of its latent space.

    Raises:
        LatentSpaceError: for one with a shift, which CogVideoX pipelines would ignore.
    """
    config = vae.config
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config[key] is not None:
            raise LatentSpaceError(
                f"this VAE's config has `{key}`={config[key]!r}, which CogVideoX pipelines ignore: "
                "set it to null, or build the `LatentSpace` by hand"
            )
    return {
        "channels": config["latent_channels"],
        "spatial_compression": 2 ** (len(config["block_out_channels"]) - 1),
        "temporal_compression": int(config["temporal_compression_ratio"]),
        "scaling_factor": float(config["scaling_factor"]),
    }


def vae_name(vae: Any) -> str:
    """Name of a CogVideoX VAE: a published one by its config, any other by its weights.

    Raises:
        ValueError: if the weights are needed and are on the meta device.
    """
    config = vae.config
    published = all(
        (tuple(config[key]) if isinstance(value, tuple) else config[key]) == value
        for key, value in _PUBLISHED.items()
    )
    for name, scaling_factor in _PUBLISHED_SCALING.items():
        if published and isclose(config["scaling_factor"], scaling_factor, rel_tol=1e-6):
            return name
    return f"cogvideox-vae-{weights_fingerprint(vae.named_parameters())[:12]}"


@contextmanager
def _low_memory(vae: Any, tile: Tile | None) -> Iterator[None]:
    """Run the VAE one clip at a time and in tiles, then put its settings back."""
    before = {
        name: vae.__dict__[name]
        for name in (
            "use_slicing",
            "use_tiling",
            "tile_sample_min_height",
            "tile_sample_min_width",
            "tile_latent_min_height",
            "tile_latent_min_width",
            "tile_overlap_factor_height",
            "tile_overlap_factor_width",
        )
    }
    try:
        vae.use_slicing = True
        vae.use_tiling = False
        if tile is not None:
            vae.enable_tiling(*tile, *_OVERLAP)
        yield
    finally:
        vae.__dict__.update(before)


def check_encodable(spatial_compression: int, tile: Tile | None, height: int, width: int) -> None:
    """Refuse frame sizes of broken latents, and tiles that would not overlap by whole latents.

    Raises:
        ValueError: with the sizes that work.
    """
    check_size(spatial_compression, height, width)
    steps = (6 * spatial_compression, 5 * spatial_compression)
    if tile is not None and (min(tile) < 1 or tile[0] % steps[0] or tile[1] % steps[1]):
        raise ValueError(
            f"expected a tile (height, width) in multiples of {steps} pixels, so that tiles "
            f"overlap by whole latents, got {tile}; the default is {DEFAULT_TILE}, None never tiles"
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
        vae: an `AutoencoderKLCogVideoX`; runs in its own dtype, 8 frames at a time.
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

    The VAE reads latents in pairs after a first group of three, and an even number of latents
    makes it decode the first one to four frames instead of one. For even lengths the last
    latent is therefore repeated and the four frames of the repeat are dropped. All frames
    before the last group are exactly what any longer odd clip with the same beginning gives;
    those of the last group (the VAE normalises over a group) differ slightly.

    Args:
        latents: unscaled latents.
        vae: an `AutoencoderKLCogVideoX`; runs in its own dtype.
        tile: height and width of a tile in pixels, as in encoding.
    """
    fields = vae_fields(vae)
    side = fields["spatial_compression"]
    check_encodable(side, tile, latents.shape[3] * side, latents.shape[4] * side)
    steps = latents.shape[1]
    if steps % 2 == 0:
        latents = torch.cat([latents, latents[:, -1:]], dim=1)
    with _low_memory(vae, tile):
        frames = decoded_frames(vae, latents)
    return frames[:, : fields["temporal_compression"] * (steps - 1) + 1]


COGVIDEOX_VAE = VAEFamily(
    fields=vae_fields,
    name=vae_name,
    encode=encode_frames,
    decode=decode_latents,
    tile=DEFAULT_TILE,
    check=check_encodable,
)
"""`AutoencoderKLCogVideoX`; `tile` is the size of a tile in pixels."""
