"""A family of VAEs: how the VAEs of one diffusers class are read and run."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.checks import check_range, check_size, latent_frames
from gtsvj_reward.latents.fingerprint import weights_fingerprint
from gtsvj_reward.latents.vae_lock import vae_lock

Tile = tuple[int, int]
"""Height and width of a tile in pixels."""

TileChoice = Tile | Literal["auto"] | None
"""A tile, the family's own (`auto`), or None: never tile."""

_SETTINGS = ("use_", "tile_", "drop_")
"""How the names of attributes begin that a call may change on the VAE, and puts back."""


class VAEFamily(ABC):
    """A diffusers VAE, read and run as its own pipelines do.

    Frames are (batch, time, 3, height, width) in [0, 1], float32; latents are (batch, step,
    channel, row, column) as the VAE puts them out, before scaling, float32. The VAE runs in its own
    dtype, one clip and one tile at a time, and not in two threads at once.

    A family is a subclass with `kind`, `tile` and `read`, and whatever else differs.

    Args:
        vae: of the class that `VAE_FAMILIES` lists the family under.
    """

    kind: ClassVar[str]
    """Begins the name of a VAE that is known by its weights alone."""
    published: ClassVar[dict[str, dict[str, Any]]] = {}
    """Name of a space -> the fields of the published config that tell its VAE from others."""
    tile: ClassVar[Tile]
    """Tile that diffusers takes for the published VAE; frames no larger are encoded whole."""
    tile_unit: ClassVar[tuple[int, int]] = (1, 1)
    """Latents that a tile's height and width must be multiples of."""
    overlap: ClassVar[int] = 4
    """A tile overlaps the next one by this part of its size, a quarter, or by a little more."""
    settings: ClassVar[dict[str, Any]] = {}
    """Attributes of the VAE that a call sets besides tiles, whatever they were set to."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.fields = self.read()
        self.side: int = self.fields["spatial_compression"]

    @abstractmethod
    def read(self) -> dict[str, Any]:
        """Fields of the VAE's `LatentSpace`: channels, compressions, scaling, layout, ...

        Raises:
            LatentSpaceError: for a config that its pipelines would not follow.
        """

    def pixels(
        self, raw: Float[Tensor, "batch channels steps rows columns"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Pixels in [-1, 1] of unscaled latents by the VAE as it is set up now."""
        decoded: Tensor = self.vae.decode(raw).sample
        return decoded

    def tiling(self, tile: Tile, *, encoding: bool) -> dict[str, float]:
        """Arguments of the VAE's `enable_tiling`."""
        del encoding
        return {
            "tile_sample_min_height": tile[0],
            "tile_sample_min_width": tile[1],
            "tile_sample_stride_height": self.tile_stride(tile[0]),
            "tile_sample_stride_width": self.tile_stride(tile[1]),
        }

    def fit_tiles(self, rows: int, columns: int) -> None:
        """Change tiles for latents of a size, inside a call; settings are put back behind it."""
        del rows, columns

    def tile_stride(self, edge: int) -> int:
        """Pixels from one tile to the next, in whole latents."""
        return edge * (self.overlap - 1) // self.overlap // self.side * self.side

    def check_tile(self, tile: Tile) -> None:
        """Reject a tile that would not overlap the next one by whole latents.

        Raises:
            ValueError: with the tiles that work.
        """
        rows, columns = (unit * self.side for unit in self.tile_unit)
        least = max(2 * self.side, min(rows, columns))
        if min(tile) < least or tile[0] % rows or tile[1] % columns:
            multiples = rows if rows == columns else (rows, columns)
            raise ValueError(
                f"expected a tile (height, width) in multiples of {multiples} pixels, at least "
                f"{least}, so that tiles overlap by whole latents, got {tile}; the default is "
                f"{self.tile}, None never tiles"
            )

    def name(self) -> str:
        """Name of the VAE's space: of a published one by its config, else of its weights.

        Raises:
            ValueError: if the weights are needed and are on the meta device.
        """
        config = self.vae.config
        for name, published in self.published.items():
            if all(_alike(config[key], value) for key, value in published.items()):
                return name
        return f"{self.kind}-{weights_fingerprint(self.vae.named_parameters())[:12]}"

    def chosen_tile(self, choice: TileChoice) -> Tile | None:
        """The tile that a choice stands for."""
        return self.tile if choice == "auto" else choice

    def check(self, height: int, width: int, tile: Tile | None) -> None:
        """Reject frame sizes of broken latents, and tiles that do not work.

        Raises:
            ValueError: with the sizes that work.
        """
        check_size(self.side, height, width)
        if tile is not None:
            self.check_tile(tile)

    def encode(
        self,
        frames: Float[Tensor, "batch time 3 height width"],
        generator: torch.Generator | None,
        tile: Tile | None,
    ) -> Float[Tensor, "batch steps channels rows columns"]:
        """Unscaled latents of frames: the posterior's mode, or a sample given a generator.

        Args:
            frames: in [0, 1].
            generator: draws from the posterior; None takes its mode.
            tile: frames larger than it are encoded in overlapping tiles; None: never.

        Raises:
            ValueError: for frames outside [0, 1], or of a length or size that the VAE cannot hold.
        """
        self.check(frames.shape[3], frames.shape[4], tile)
        latent_frames(frames.shape[1], self.fields["temporal_compression"])
        check_range(frames)
        with self.running(tile, encoding=True) as vae:
            self.fit_tiles(frames.shape[3] // self.side, frames.shape[4] // self.side)
            pixels = (frames.to(vae.device) * 2 - 1).to(vae.dtype).transpose(1, 2)
            posterior = vae.encode(pixels).latent_dist
            latents: Tensor = posterior.mode() if generator is None else posterior.sample(generator)
        return latents.transpose(1, 2).float()

    def decode(
        self, latents: Float[Tensor, "batch steps channels rows columns"], tile: Tile | None
    ) -> Float[Tensor, "batch time 3 height width"]:
        """Frames of unscaled latents, clipped to [0, 1]; every latent but the first gives several.

        Args:
            latents: unscaled latents.
            tile: as in encoding.
        """
        self.check(latents.shape[3] * self.side, latents.shape[4] * self.side, tile)
        with self.running(tile, encoding=False) as vae:
            self.fit_tiles(latents.shape[3], latents.shape[4])
            pixels = self.pixels(latents.to(vae.device, vae.dtype).transpose(1, 2))
        return (pixels.transpose(1, 2).float() / 2 + 0.5).clamp(0, 1)

    @contextmanager
    def running(self, tile: Tile | None, *, encoding: bool) -> Iterator[Any]:
        """The VAE, held and set to run one clip and one tile at a time; then set back."""
        with vae_lock(self.vae):
            attributes = vars(self.vae)
            before = {k: v for k, v in attributes.items() if k.startswith(_SETTINGS)}
            try:
                attributes.update(use_slicing=True, use_tiling=False, **self.settings)
                if tile is not None:
                    self.vae.enable_tiling(**self.tiling(tile, encoding=encoding))
                yield self.vae
            finally:
                attributes.update(before)


def _alike(given: Any, expected: Any) -> bool:
    """Whether values of two configs are the same: numbers to rounding, tuples as lists."""
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(given, (list, tuple))
            and len(given) == len(expected)
            and all(_alike(a, b) for a, b in zip(given, expected, strict=True))
        )
    if isinstance(expected, float) and isinstance(given, (int, float)):
        return isclose(given, expected, rel_tol=1e-6)
    return bool(given == expected)
