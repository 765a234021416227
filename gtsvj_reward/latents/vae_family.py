"""The contract of a family of VAEs, and what all families refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Tile = tuple[int, int]
"""Height and width of a tile in pixels."""

TileChoice = Tile | Literal["auto"] | None
"""A tile, the family's own (`auto`), or None: never tile."""


@dataclass(frozen=True, kw_only=True)
class VAEFamily:
    """How the VAEs of one diffusers class are read and run.

    Frames are (batch, time, 3, height, width) in [0, 1], float32; latents are (batch, step,
    channel, row, column) as the VAE puts them out, before scaling, float32.
    """

    fields: Callable[[Any], dict[str, Any]]
    """VAE -> fields of its `LatentSpace`: channels, compressions, scaling, layout, ..."""
    name: Callable[[Any], str]
    """VAE -> name of its space: of a published one by its config, else of its weights."""
    encode: Callable[[Tensor, Any, torch.Generator | None, Tile | None], Tensor]
    """Frames, VAE, generator (None: the posterior's mode), tile (None: never) -> latents."""
    decode: Callable[[Tensor, Any, Tile | None], Tensor]
    """Latents, VAE, tile -> frames, clipped to [0, 1]."""
    tile: Tile
    """Tile that diffusers takes for the published VAE; frames no larger are encoded whole."""
    check: Callable[[int, Tile | None, int, int], None]
    """Refuses a spatial compression, tile, height and width that do not go together."""

    def chosen_tile(self, tile: TileChoice) -> Tile | None:
        """The tile that a choice stands for."""
        return self.tile if tile == "auto" else tile


def check_size(spatial_compression: int, height: int, width: int) -> None:
    """Refuse frame sizes that would make broken latents.

    Raises:
        ValueError: with the sizes that work.
    """
    if height < 1 or width < 1 or height % spatial_compression or width % spatial_compression:
        raise ValueError(
            f"expected height and width in multiples of {spatial_compression}, "
            f"got {height}x{width}: crop or resize the frames"
        )


def check_frames(frames: Tensor, temporal_compression: int) -> None:
    """Refuse clips that the VAE would encode to something else than asked.

    Raises:
        ValueError: for a length that is not whole latents, or values outside [0, 1].
    """
    if (frames.shape[1] - 1) % temporal_compression:
        raise ValueError(
            f"expected {temporal_compression}f + 1 frames (1, {temporal_compression + 1}, "
            f"{2 * temporal_compression + 1}, ...), got {frames.shape[1]}: cut the clip to such a "
            "length"
        )
    low, high = (bound.item() for bound in torch.aminmax(frames.detach()))
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"expected frames in [0, 1], got {low:.4g} to {high:.4g}: divide uint8 frames by 255; "
            "frames in [-1, 1] need `(frames + 1) / 2`"
        )


def posterior_latents(vae: Any, frames: Tensor, generator: torch.Generator | None) -> Tensor:
    """What a VAE, as it is set up now, makes of frames: its posterior's mode, or a sample."""
    pixels = (frames.to(vae.device) * 2 - 1).to(vae.dtype).transpose(1, 2)
    posterior = vae.encode(pixels).latent_dist
    latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
    return latents.transpose(1, 2).float()


def decoded_frames(vae: Any, latents: Tensor) -> Tensor:
    """What a VAE, as it is set up now, makes of its own latents, clipped to [0, 1]."""
    pixels: Tensor = vae.decode(latents.to(vae.device, vae.dtype).transpose(1, 2)).sample
    return unit_frames(pixels)


def unit_frames(pixels: Tensor) -> Tensor:
    """Frames in [0, 1] of pixels (batch, 3, time, height, width) in [-1, 1]."""
    return (pixels.transpose(1, 2).float() / 2 + 0.5).clamp(0, 1)
