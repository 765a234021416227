"""Encoding and decoding against unmodified diffusers."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.latents.cogvideox_vae import DEFAULT_TILE
from tests.latents.tiny import make_vae, moving_frames


def clip(time, height=32, width=48, seed=0):
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def reference(vae, frames):
    posterior = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist
    return posterior.mode().transpose(1, 2) * vae.config.scaling_factor


@pytest.mark.parametrize("time", [1, 5, 9, 13, 17, 21])
@torch.no_grad()
def test_encode_equals_diffusers(vae, space, time):
    frames = torch.cat([clip(time, 16, 24), clip(time, 16, 24, seed=1)])
    latents = space.encode(frames, vae)
    assert latents.shape == (2, space.latent_frames(time), 4, 2, 3)
    torch.testing.assert_close(latents, reference(vae, frames), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-3


@torch.no_grad()
def test_tiles_equal_diffusers_tiles(space):
    vae, tile = make_vae(), (48, 40)
    frames = clip(5, height=56, width=80)
    tiled = space.encode(frames, vae, tile=tile)
    whole = space.encode(frames, vae)
    torch.testing.assert_close(whole, reference(vae, frames), atol=1e-5, rtol=1e-5)
    decoded = space.decode(tiled[:, :1], vae, tile=tile)
    vae.enable_tiling(*tile, 1 / 6, 1 / 5)
    torch.testing.assert_close(tiled, reference(vae, frames), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tiled, whole, atol=1e-5), "nothing was tiled"
    raw = tiled[:, :1].transpose(1, 2) / vae.config.scaling_factor
    pixels = (vae.decode(raw).sample.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, pixels, atol=1e-5, rtol=1e-5)


def test_default_tiles_are_those_of_the_published_vae():
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX()
    assert (vae.tile_sample_min_height, vae.tile_sample_min_width) == DEFAULT_TILE
    assert (vae.tile_overlap_factor_height, vae.tile_overlap_factor_width) == (1 / 6, 1 / 5)


@pytest.mark.parametrize("k", range(1, 40))
def test_tile_sizes_overlap_by_whole_latents(k):
    # diffusers truncates products of floats: an overlap one latent short would shift the tiles
    height, width = 48 * k, 40 * k
    for tile, latent, factor, kept in ((height, 6 * k, 1 / 6, 5 * k), (width, 5 * k, 1 / 5, 4 * k)):
        assert int(tile * (1 - factor)) == 8 * kept
        assert int(latent * (1 - factor)) == kept
        assert latent - int(latent * factor) == kept
        assert tile - int(tile * factor) == 8 * kept


@pytest.mark.parametrize("tile", [DEFAULT_TILE, (48, 40), None])
@torch.no_grad()
def test_settings_of_the_vae_are_put_back_also_after_an_error(space, tile, monkeypatch):
    vae = make_vae()
    vae.enable_tiling(16, 24)
    before = {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}
    space.encode(clip(1, 56, 48), vae, tile=tile)
    space.decode(torch.randn(1, 1, 4, 4, 6), vae, tile=tile)

    def broken(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vae, "encode", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.encode(clip(1), vae, tile=tile)
    assert before == {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}


def test_mode_is_deterministic_and_a_generator_samples(vae, space):
    frames = clip(5)
    with torch.no_grad():
        mode = space.encode(frames, vae)
        assert torch.equal(mode, space.encode(frames, vae))
        draws = [
            space.encode(frames, vae, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert not torch.allclose(draws[0], mode)


@pytest.mark.parametrize("steps", range(1, 8))
@torch.no_grad()
def test_any_number_of_latents_gives_4f_plus_1_frames(vae, space, steps):
    latents = torch.randn(1, 7, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    decoded = space.decode(latents[:, :steps], vae)
    assert decoded.shape == (1, 4 * (steps - 1) + 1, 3, 16, 24)
    by_diffusers = vae.decode(latents[:, :steps].transpose(1, 2) / space.scaling_factor).sample
    by_diffusers = (by_diffusers.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    if steps % 2:
        torch.testing.assert_close(decoded, by_diffusers, atol=1e-6, rtol=0)
        return
    assert by_diffusers.shape[1] == 4 * steps, "diffusers changed: is the repeat still needed?"
    longer = space.decode(latents[:, : steps + 1], vae)
    before_last_group = max(0, 4 * (steps - 2) + 1) if steps > 2 else 0
    assert torch.equal(decoded[:, :before_last_group], longer[:, :before_last_group])
    gap = (decoded - longer[:, : decoded.shape[1]]).square().mean().sqrt()
    assert gap < 0.5 * longer.std(), "the last group has little to do with the true clip"


def test_gradients_follow_the_callers_mode(vae, space):
    frames = clip(5, 16, 24).requires_grad_()
    latents = space.encode(frames, vae)
    (gradient,) = torch.autograd.grad(latents.square().sum(), frames)
    assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    point = torch.randn(1, 2, 4, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(space.decode(point, vae).sum(), point)
    assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    with torch.no_grad():
        assert not space.encode(frames, vae).requires_grad


def test_runs_in_the_vaes_type_and_returns_float32(space):
    vae = make_vae().to(torch.bfloat16)
    with torch.no_grad():
        latents = space.encode(clip(5), vae)
        frames = space.decode(latents, vae)
    assert latents.dtype == frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.max() <= 1


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (clip(4), {}, r"4f \+ 1 frames .* got 4"),
        (clip(1, 36, 48), {}, "multiples of 8, got 36x48"),
        (clip(1) * 255, {}, r"in \[0, 1\].* divide uint8 frames by 255"),
        (clip(1) * 2 - 1, {}, r"in \[0, 1\], got -"),
        (clip(1) * float("nan"), {}, r"in \[0, 1\], got nan"),
        (clip(1), {"tile": (64, 64)}, r"multiples of \(48, 40\)"),
    ],
)
def test_encode_refuses(vae, space, frames, options, message):
    with pytest.raises(ValueError, match=message):
        space.encode(frames, vae, **options)


def test_a_vae_of_another_space_is_refused(space):
    other = make_vae(latent_channels=16)
    with pytest.raises(LatentSpaceError, match=r"'channels': 4.*'channels': 16"):
        space.encode(clip(1), other)
    with pytest.raises(LatentSpaceError, match=r"'channels': 4.*'channels': 16"):
        space.decode(torch.randn(1, 1, 4, 2, 2), other)
