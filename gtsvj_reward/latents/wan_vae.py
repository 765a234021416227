"""The VAEs of Wan."""

from typing import Any

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.vae_family import Tile, VAEFamily

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


class WanVAE(VAEFamily):
    """`AutoencoderKLWan`; it encodes 4 frames at a time, and decodes one latent after the other.

    `wan-2.1` is also the VAE of Wan 2.2's models of 14B, `wan-2.2-5b` that of the 5B model. Tiles
    are rounded down to whole latents.
    """

    kind = "wan-vae"
    published = PUBLISHED
    tile = (256, 256)

    def read(self) -> dict[str, Any]:
        """See `VAEFamily.read`. A diffusers that is too old is rejected as well."""
        config = self.vae.config
        spatial = config.get("scale_factor_spatial")
        if spatial is None or self.vae.spatial_compression_ratio != spatial:
            raise LatentSpaceError(
                "this diffusers does not support the compression of Wan VAEs, and would cut wrong "
                "tiles: install diffusers 0.36 or newer"
            )
        temporal = config["scale_factor_temporal"]
        built = (
            2 ** len(config["temperal_downsample"]) * (config["patch_size"] or 1),
            2 ** sum(config["temperal_downsample"]),
        )
        # diffusers cuts clips into groups of four frames, whatever the config says.
        if (spatial, temporal) != built or temporal != 4:
            raise LatentSpaceError(
                f"this VAE's config says that it compresses space by {spatial} and time by "
                f"{temporal}, its layers by {built[0]} and {built[1]}: expected the same numbers, "
                "and 4 in time"
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

    def check_tile(self, tile: Tile) -> None:
        """See `VAEFamily.check_tile`."""
        if min(tile) < 4 * self.side:
            raise ValueError(
                f"expected a tile (height, width) of {4 * self.side} pixels or more, so that tiles "
                f"overlap by whole latents, got {tile}; None never tiles"
            )

    def tiling(self, tile: Tile, *, encoding: bool) -> dict[str, float]:
        """Arguments of the VAE's `enable_tiling`, for tiles of whole latents."""
        height, width = (edge // self.side * self.side for edge in tile)
        sizes = super().tiling((height, width), encoding=encoding)
        # diffusers tiles what it encodes after the patches of the VAE were cut: not in pixels.
        patch = self.vae.config["patch_size"] or 1 if encoding else 1
        return {name: size // patch for name, size in sizes.items()}
