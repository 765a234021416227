"""A tiny real VAE, and videos rendered on the spot."""

import torch
from diffusers import AutoencoderKLCogVideoX


def make_vae(seed=0, **changes):
    torch.manual_seed(seed)
    config = {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "sample_height": 32,
        "sample_width": 32,
        **changes,
    }
    return AutoencoderKLCogVideoX(**config).eval()


def moving_frames(time, height=32, width=48, seed=0):
    """Smooth uint8 frames `(time, height, width, 3)` that differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 3, 2 + time // 4, 4, 6, generator=generator)
    clip = torch.nn.functional.interpolate(low, (time, height, width), mode="trilinear")
    return (clip[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8)
