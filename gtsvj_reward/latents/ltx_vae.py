"""Running a diffusers `AutoencoderKLLTXVideo`, reading its identity, and unpacking tokens."""

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
    posterior_latents,
    unit_frames,
)

LTX_TILE = (512, 512)
"""Height and width of a tile in pixels; what diffusers uses for LTX."""

_OVERLAP = 8
"""A tile overlaps the next one by this part of its size: 64 of 512 pixels, as in diffusers."""


def vae_fields(vae: Any) -> dict[str, Any]:
    """What an LTX VAE says of its latent space; mean and std are buffers beside its weights.

    Raises:
        LatentSpaceError: for a VAE on the meta device, where the buffers have no values.
    """
    if vae.latents_mean.is_meta:
        raise LatentSpaceError(
            "this VAE is on the meta device, and the mean and std of LTX latents are in its "
            "weights (`latents_mean`, `latents_std`), not in its config: load the weights"
        )
    # Pipelines compute (z - mean) * scaling_factor / std, with a factor of 1 as published.
    std = vae.latents_std.detach().float() / vae.config.scaling_factor
    return {
        "channels": vae.config.latent_channels,
        "spatial_compression": int(vae.spatial_compression_ratio),
        "temporal_compression": int(vae.temporal_compression_ratio),
        "layout": "BCTHW",
        "mean": tuple(vae.latents_mean.detach().float().tolist()),
        "std": tuple(std.tolist()),
    }


def vae_name(vae: Any) -> str:
    """Name of an LTX VAE, after its weights, which its mean and std need anyway.

    Raises:
        ValueError: if the weights are on the meta device.
    """
    return f"ltx-vae-{weights_fingerprint(vae.named_parameters())[:12]}"


def check_encodable(spatial_compression: int, tile: Tile | None, height: int, width: int) -> None:
    """Refuse frame sizes of broken latents, and tiles that would not overlap by whole latents.

    Raises:
        ValueError: with the sizes that work.
    """
    check_size(spatial_compression, height, width)
    step = _OVERLAP * spatial_compression
    if tile is not None and (min(tile) < 1 or tile[0] % step or tile[1] % step):
        raise ValueError(
            f"expected a tile (height, width) in multiples of {step} pixels, so that tiles "
            f"overlap by whole latents, got {tile}; diffusers takes {LTX_TILE} for LTX, None "
            "never tiles"
        )


@contextmanager
def _settings(vae: Any, tile: Tile | None) -> Iterator[None]:
    """Run the VAE one clip at a time and in tiles, then put its settings back."""
    before = {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}
    try:
        vae.use_slicing = True
        vae.use_tiling = vae.use_framewise_encoding = vae.use_framewise_decoding = False
        if tile is not None:
            height, width = tile
            vae.enable_tiling(
                tile_sample_min_height=height,
                tile_sample_min_width=width,
                tile_sample_stride_height=height - height // _OVERLAP,
                tile_sample_stride_width=width - width // _OVERLAP,
            )
        yield
    finally:
        vae.__dict__.update(before)


def encode_frames(
    frames: Float[Tensor, "batch time 3 height width"],
    vae: Any,
    generator: torch.Generator | None,
    tile: Tile | None,
) -> Float[Tensor, "batch steps channels rows columns"]:
    """Unscaled latents of clips, float32: the posterior's mode, or a sample given a generator.

    Args:
        frames: in [0, 1], 8f + 1 of them.
        vae: an `AutoencoderKLLTXVideo`; runs in its own dtype, a whole clip or tile at a time.
        generator: draws from the posterior; None takes its mode.
        tile: height and width of a tile in pixels; frames larger than it are encoded in
            overlapping tiles. None encodes whole frames.

    Raises:
        ValueError: for frames outside [0, 1], or of a length or size that the VAE cannot hold.
    """
    fields = vae_fields(vae)
    check_encodable(fields["spatial_compression"], tile, frames.shape[3], frames.shape[4])
    check_frames(frames, fields["temporal_compression"])
    with _settings(vae, tile):
        return posterior_latents(vae, frames, generator)


def decode_latents(
    latents: Float[Tensor, "batch steps channels rows columns"],
    vae: Any,
    tile: Tile | None,
) -> Float[Tensor, "batch time 3 height width"]:
    """Frames of unscaled latents, float32 in [0, 1]: `steps` latents give 8(steps - 1) + 1 frames.

    Decoders that take a timestep (0.9.1 and later) are told 0 and get no noise, which is the
    default of the pipelines (`decode_timestep=0.0`). The pages of diffusers advise 0.05 and noise.

    Args:
        latents: unscaled latents.
        vae: an `AutoencoderKLLTXVideo`; runs in its own dtype.
        tile: height and width of a tile in pixels, as in encoding.

    Raises:
        LatentSpaceError: for a decoder that draws noise inside.
        ValueError: for a tile that does not fit.
    """
    if any(vae.config.decoder_inject_noise):
        raise LatentSpaceError(
            "this VAE's decoder adds noise of its own (`decoder_inject_noise`, as in LTX 0.9.1), "
            "so that the same latents would give other frames in each call: decode with the "
            "pipeline instead. Encoding and scoring need no decoder"
        )
    side = vae_fields(vae)["spatial_compression"]
    check_encodable(side, tile, latents.shape[3] * side, latents.shape[4] * side)
    raw = latents.to(vae.device, vae.dtype).transpose(1, 2)
    clean = raw.new_zeros(1) if vae.config.timestep_conditioning else None
    with _settings(vae, tile):
        # Clip by clip: diffusers pairs the wrong things when it slices a batch with timesteps.
        clips = [vae.decode(clip[None], clean).sample for clip in raw]
    return unit_frames(torch.cat(clips))


def unpack_tokens(
    tokens: Float[Tensor, "batch token channels"], size: tuple[int, int, int], channels: int
) -> Float[Tensor, "batch time channels height width"]:
    """Latents of the tokens that `LTXPipeline(output_type="latent")` returns; both are scaled.

    Args:
        tokens: time, height and width in one axis, in this order.
        size: latent frames, height and width of the clip. The tokens do not say them: 6 x 4 and
            4 x 6 have as many.
        channels: latent channels.

    Raises:
        LatentSpaceError: for another rank, number of channels or number of tokens.
    """
    if tokens.ndim != 3 or tokens.shape[2] != channels:
        raise LatentSpaceError(
            f"expected packed latents (batch, token, {channels}), got shape {tuple(tokens.shape)}: "
            "`LTXConditionPipeline` returns latents that are unpacked already"
        )
    time, height, width = size
    if min(size) < 1 or tokens.shape[1] != time * height * width:
        raise LatentSpaceError(
            f"expected {time} x {height} x {width} = {time * height * width} tokens, got "
            f"{tokens.shape[1]}: frames, height and width must be what the pipeline was called with"
        )
    latents: Tensor = tokens.unflatten(1, size).movedim(-1, 2)
    return latents


LTX_VAE = VAEFamily(
    fields=vae_fields,
    name=vae_name,
    encode=encode_frames,
    decode=decode_latents,
    tile=LTX_TILE,
    check=check_encodable,
)
"""`AutoencoderKLLTXVideo`; `tile` is the size of a tile in pixels."""
