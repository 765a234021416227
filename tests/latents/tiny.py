"""Tiny VAEs of every family, one row a kind with what the laws need to know of it; and clips."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import diffusers
import pytest
import torch
from packaging.version import Version

from gtsvj_reward.latents import LatentSpace

DIFFUSERS = Version(version("diffusers"))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of VAE, a few channels wide."""

    name: str
    of: str
    """Class of diffusers."""
    config: dict[str, Any]
    small: tuple[int, int] = (16, 24)
    """Height and width of frames of a few latents."""
    tile: tuple[int, int]
    """A small tile that overlaps by whole latents, in pixels."""
    large: tuple[int, int]
    """Height and width of frames that take several such tiles."""
    own_tiles: dict[str, float]
    """What makes diffusers tile so: arguments of `enable_tiling`, besides the tile's size."""
    bad_tiles: dict[tuple[int, int], str]
    """Tiles that are refused, and what is said."""
    patch: int = 1
    """Pixels that are one for `enable_tiling` when diffusers encodes."""
    even: bool = True
    """Whether diffusers decodes an even number of latents to 4f + 1 frames."""
    since: str = "0.32"
    """Version of diffusers that brought it."""

    def make(self, seed=0, **changes):
        torch.manual_seed(seed)
        vae = getattr(diffusers, self.of)(**{**self.config, **changes})
        if self.name.startswith("ltx"):
            vae.latents_mean.normal_(0, 0.3)
            vae.latents_std.uniform_(0.5, 2)
        return vae.eval().requires_grad_(False)

    def decoded(self, vae, raw):
        """Frames in [0, 1] of the VAE's own latents, as its pipeline decodes them by default."""
        timesteps = vae.config.get("timestep_conditioning", False)
        video = vae.decode(raw, *([torch.zeros(len(raw))] if timesteps else [])).sample
        return (video.transpose(1, 2) / 2 + 0.5).clamp(0, 1)

    def enable_own_tiles(self, vae, *, encoding):
        patch = self.patch if encoding else 1
        sizes = {"tile_sample_min_height": self.tile[0], "tile_sample_min_width": self.tile[1]}
        sizes |= self.own_tiles
        vae.enable_tiling(
            **{key: size // patch if patch > 1 else size for key, size in sizes.items()}
        )


def strides(height, width):
    return {"tile_sample_stride_height": height, "tile_sample_stride_width": width}


NARROW = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1,
          "latent_channels": 4}  # fmt: skip
WAN = {"base_dim": 4, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1}

FAMILIES = [
    Family(
        name="cogvideox",
        of="AutoencoderKLCogVideoX",
        config=NARROW,
        tile=(48, 40),
        large=(56, 80),
        own_tiles={"tile_overlap_factor_height": 1 / 6, "tile_overlap_factor_width": 1 / 5},
        bad_tiles={(64, 64): r"multiples of \(48, 40\)", (0, 40): "at least 40"},
        even=False,
    ),
    Family(
        name="hunyuan-video",
        of="AutoencoderKLHunyuanVideo",
        config=NARROW,
        tile=(32, 32),
        large=(48, 56),
        own_tiles=strides(24, 24),
        bad_tiles={(64, 60): r"multiples of 8 pixels.* got \(64, 60\)", (8, 64): "at least 16"},
    ),
    Family(
        name="ltx-0.9.0",
        of="AutoencoderKLLTXVideo",
        config={
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8, 8),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1, 1, 1),
        },
        small=(32, 64),
        tile=(256, 256),
        large=(288, 320),
        own_tiles=strides(224, 224),
        bad_tiles={(240, 360): r"multiples of 256 pixels.*got \(240", (0, 256): "multiples of 256"},
    ),
    Family(
        name="ltx-0.9.5",
        of="AutoencoderKLLTXVideo",
        config={
            "latent_channels": 8,
            "block_out_channels": (8, 8, 8, 8, 8),
            "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
            "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            "spatio_temporal_scaling": (True, True, True, True),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_block_out_channels": (8, 16, 32),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_spatio_temporal_scaling": (True, True, True),
            "decoder_inject_noise": (False, False, False, False),
            "upsample_residual": (True, True, True),
            "upsample_factor": (2, 2, 2),
            "timestep_conditioning": True,
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
        small=(32, 64),
        tile=(256, 256),
        large=(288, 320),
        own_tiles=strides(224, 224),
        bad_tiles={(256, 128): "multiples of 256"},
        since="0.33",
    ),
    Family(
        name="hunyuan-video-1.5",
        of="AutoencoderKLHunyuanVideo15",
        config={
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8, 16, 16),
            "layers_per_block": 1,
        },
        small=(32, 48),
        tile=(64, 64),
        large=(96, 144),
        own_tiles={"tile_latent_min_height": 4, "tile_latent_min_width": 4},
        bad_tiles={(96, 64): r"multiples of 64 pixels.*got \(96, 64\)", (0, 64): "at least 64"},
        since="0.36",
    ),
    Family(
        name="ltx2",
        of="AutoencoderKLLTX2Video",
        config={
            "latent_channels": 8,
            "block_out_channels": (8, 8, 16, 16),
            "layers_per_block": (1, 1, 1, 1, 1),
            "decoder_block_out_channels": (8, 16, 32),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "spatial_compression_ratio": 32,
            "temporal_compression_ratio": 8,
        },
        small=(64, 96),
        tile=(256, 256),
        large=(288, 320),
        own_tiles=strides(224, 224),
        bad_tiles={(256, 128): "multiples of 256"},
        since="0.37",
    ),
    Family(
        name="mochi",
        of="AutoencoderKLMochi",
        config={  # 32 channels are the fewest that its norms take
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "layers_per_block": (1, 1, 1, 1, 1),
        },
        tile=(32, 32),
        large=(40, 56),
        own_tiles=strides(24, 24),
        bad_tiles={(36, 32): "multiples of 8 pixels, at least 16", (32, 8): "at least 16"},
    ),
    Family(
        name="wan-2.1",
        of="AutoencoderKLWan",
        config={
            **WAN,
            "z_dim": 4,
            "latents_mean": [-0.5, -0.2, 0.1, 0.4],
            "latents_std": [0.5, 0.75, 1.0, 1.25],
        },
        tile=(32, 32),
        large=(48, 72),
        own_tiles=strides(24, 24),
        bad_tiles={(24, 64): r"of 32 pixels or more.*got \(24, 64\)"},
        since="0.36",
    ),
    Family(
        name="wan-2.2-5b",
        of="AutoencoderKLWan",
        config={
            **WAN,
            "z_dim": 6,
            "decoder_base_dim": 6,
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "latents_mean": [-0.5, -0.2, 0.1, 0.4, 0.7, 1.0],
            "latents_std": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75],
        },
        small=(32, 48),
        tile=(64, 64),
        large=(96, 144),
        own_tiles=strides(48, 48),
        bad_tiles={(48, 64): "of 64 pixels or more"},
        patch=2,
        since="0.36",
    ),
]
BY_NAME = {family.name: family for family in FAMILIES}
make_vae = BY_NAME["cogvideox"].make


def params(prefix=""):
    """The families whose names begin so, as parameters of a test."""
    return [
        pytest.param(
            family,
            id=family.name,
            marks=pytest.mark.skipif(
                Version(family.since) > DIFFUSERS, reason=f"needs diffusers {family.since}"
            ),
        )
        for family in FAMILIES
        if family.name.startswith(prefix)
    ]


def moving_frames(time, height=32, width=48, seed=0):
    """Smooth uint8 frames `(time, height, width, 3)` that differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 3, 2 + time // 4, 4, 6, generator=generator)
    clip = torch.nn.functional.interpolate(low, (time, height, width), mode="trilinear")
    return (clip[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8)


def clip(time, height=32, width=48, seed=0):
    """A smooth clip in [0, 1] with a batch axis."""
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def latents_of(space: LatentSpace, steps, rows=2, columns=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, space.channels, rows, columns, generator=generator)
