"""A tiny real VAE, and videos rendered on the spot."""

import shutil

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from gtsvj_reward.latents import LatentSpace, write_video


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


@pytest.fixture(scope="session")
def vae():
    return make_vae()


@pytest.fixture(scope="session")
def space(vae):
    return LatentSpace.from_vae(vae)


def moving_frames(time, height=32, width=48, seed=0):
    """Smooth uint8 frames `(time, height, width, 3)` that differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(1, 3, 2 + time // 4, 4, 6, generator=generator)
    clip = torch.nn.functional.interpolate(low, (time, height, width), mode="trilinear")
    return (clip[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Five clips in three folders, named so that careless output paths would collide."""
    folder = tmp_path_factory.mktemp("rendered")
    for seed, name in enumerate(("a/x.mp4", "b/x.mp4", "b/x.gif", "b/y.mp4", "shot")):
        write_video(folder / name, moving_frames(14, seed=seed), fps=10)
    return folder


@pytest.fixture
def videos(rendered, tmp_path):
    """The rendered clips, to be changed at will."""
    return shutil.copytree(rendered, tmp_path / "videos")
