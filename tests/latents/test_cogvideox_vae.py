"""What only the VAE of CogVideoX has: tiles by parts of their size, and even numbers of latents."""

import pytest
import torch

from gtsvj_reward.latents import LatentSpace
from tests.latents.tiny import BY_NAME, latents_of


def test_tile_sizes_overlap_by_whole_latents():
    # diffusers truncates products of floats: an overlap one latent short would shift the tiles
    for k in range(1, 40):
        height, width = 48 * k, 40 * k
        tiles = ((height, 6 * k, 1 / 6, 5 * k), (width, 5 * k, 1 / 5, 4 * k))
        for tile, latent, factor, kept in tiles:
            assert int(tile * (1 - factor)) == 8 * kept
            assert int(latent * (1 - factor)) == kept
            assert latent - int(latent * factor) == kept
            assert tile - int(tile * factor) == 8 * kept


@pytest.mark.parametrize("steps", [2, 4, 6])
@torch.no_grad()
def test_an_even_number_of_latents_gives_4f_plus_1_frames(steps):
    vae = BY_NAME["cogvideox"].make()
    space = LatentSpace.from_vae(vae)
    latents = latents_of(space, steps + 1)
    decoded, longer = space.decode(latents[:, :steps], vae), space.decode(latents, vae)
    assert decoded.shape[1] == 4 * (steps - 1) + 1
    by_diffusers = vae.decode(space.unscale(latents[:, :steps]).transpose(1, 2)).sample
    assert by_diffusers.shape[2] == 4 * steps, "diffusers changed: is the repeat still needed?"
    before_last_group = 4 * (steps - 2) + 1 if steps > 2 else 0
    assert torch.equal(decoded[:, :before_last_group], longer[:, :before_last_group])
    gap = (decoded - longer[:, : decoded.shape[1]]).square().mean().sqrt()
    assert gap < 0.5 * longer.std(), "the last group has little to do with the true clip"
