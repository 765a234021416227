"""The VAE of CogVideoX."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.vae_family import Tile, VAEFamily

_BOTH = {
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 3,
    "latent_channels": 16,
    "temporal_compression_ratio": 4,
}


class CogVideoXVAE(VAEFamily):
    """`AutoencoderKLCogVideoX`; it encodes 8 frames at a time."""

    kind = "cogvideox-vae"
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "cogvideox-2b": {**_BOTH, "scaling_factor": 1.15258426},
        "cogvideox-5b": {**_BOTH, "scaling_factor": 0.7},
    }
    tile = (240, 360)
    tile_unit = (6, 5)

    def read(self) -> dict[str, Any]:
        """See `VAEFamily.read`. A shift is rejected: CogVideoX pipelines would ignore it."""
        config = self.vae.config
        for key in ("shift_factor", "latents_mean", "latents_std"):
            if config[key] is not None:
                raise LatentSpaceError(
                    f"this VAE's config has `{key}`={config[key]!r}, which CogVideoX pipelines "
                    "ignore: set it to null, or build the `LatentSpace` by hand"
                )
        return {
            "channels": config["latent_channels"],
            "spatial_compression": 2 ** (len(config["block_out_channels"]) - 1),
            "temporal_compression": int(config["temporal_compression_ratio"]),
            "scaling_factor": float(config["scaling_factor"]),
        }

    def tiling(self, tile: Tile, *, encoding: bool) -> dict[str, float]:
        """Arguments of the VAE's `enable_tiling`, which takes overlaps in place of strides."""
        del encoding
        rows, columns = self.tile_unit
        return {
            "tile_sample_min_height": tile[0],
            "tile_sample_min_width": tile[1],
            "tile_overlap_factor_height": 1 / rows,
            "tile_overlap_factor_width": 1 / columns,
        }

    def pixels(
        self, raw: Float[Tensor, "batch channels steps rows columns"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Pixels of any number of latents; `steps` of them give 4(steps - 1) + 1 frames.

        The VAE reads latents in pairs after a first group of three, and an even number of latents
        makes it decode the first one to four frames instead of one. For even lengths the last
        latent is therefore repeated and the four frames of the repeat are dropped. All frames
        before the last group are exactly what any longer odd clip with the same beginning gives;
        those of the last group (the VAE normalises over a group) differ slightly.
        """
        steps = raw.shape[2]
        if steps % 2 == 0:
            raw = torch.cat([raw, raw[:, :, -1:]], dim=2)
        return super().pixels(raw)[:, :, : self.fields["temporal_compression"] * (steps - 1) + 1]
