"""The VAE of HunyuanVideo."""

from typing import Any, ClassVar

from gtsvj_reward.latents.vae_family import VAEFamily


class HunyuanVideoVAE(VAEFamily):
    """`AutoencoderKLHunyuanVideo`.

    Clips of more than 16 frames are encoded in overlapping parts of 17, and more than 4 latents
    decoded in parts of 5, blended as diffusers does by default, whatever was set on this VAE, so
    that a clip has the same latents everywhere.
    """

    kind = "hunyuan-video-vae"
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "hunyuan-video": {
            "act_fn": "silu",
            "block_out_channels": (128, 256, 512, 512),
            "latent_channels": 16,
            "layers_per_block": 2,
            "mid_block_add_attention": True,
            "norm_num_groups": 32,
            "scaling_factor": 0.476986,
            "spatial_compression_ratio": 8,
            "temporal_compression_ratio": 4,
        }
    }
    tile = (256, 256)
    settings: ClassVar[dict[str, Any]] = {
        "use_framewise_encoding": True,
        "use_framewise_decoding": True,
        "tile_sample_min_num_frames": 16,
        "tile_sample_stride_num_frames": 12,
    }

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
