"""The VAE of HunyuanVideo 1.5."""

from typing import Any, ClassVar

from gtsvj_reward.latents.vae_family import Tile, VAEFamily


class HunyuanVideo15VAE(VAEFamily):
    """`AutoencoderKLHunyuanVideo15`: 32 channels, 16 pixels a latent; clips are coded in one go."""

    kind = "hunyuan-video-1.5-vae"
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "hunyuan-video-1.5": {
            "block_out_channels": (128, 256, 512, 1024, 1024),
            "downsample_match_channel": True,
            "latent_channels": 32,
            "layers_per_block": 2,
            "scaling_factor": 1.03682,
            "spatial_compression_ratio": 16,
            "temporal_compression_ratio": 4,
            "upsample_match_channel": True,
        }
    }
    tile = (256, 256)
    tile_unit = (4, 4)

    def read(self) -> dict[str, Any]:
        """See `VAEFamily.read`."""
        config = self.vae.config
        return {
            "channels": config["latent_channels"],
            "spatial_compression": int(config["spatial_compression_ratio"]),
            "temporal_compression": int(config["temporal_compression_ratio"]),
            "layout": "BCTHW",
            "scaling_factor": float(config["scaling_factor"]),
        }

    def tiling(self, tile: Tile, *, encoding: bool) -> dict[str, float]:
        """Arguments of the VAE's `enable_tiling`, which takes the overlap as a share."""
        del encoding
        height, width = tile
        return {
            "tile_sample_min_height": height,
            "tile_sample_min_width": width,
            "tile_latent_min_height": height // self.side,
            "tile_latent_min_width": width // self.side,
            "tile_overlap_factor": 1 / self.overlap,
        }
