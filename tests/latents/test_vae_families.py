"""Laws of all families of VAEs, on tiny instances of the real classes, against diffusers itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
import torch

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.vaes import VAE_FAMILIES, vae_family
from tests.latents.tiny import DIFFUSERS, FAMILIES, clip, latents_of, params

SETTINGS = ("use_", "tile_", "drop_")


@pytest.fixture(scope="module", params=params())
def family(request):
    return request.param


@pytest.fixture(scope="module")
def vae(family):
    return family.make()


@pytest.fixture(scope="module")
def space(vae):
    return LatentSpace.from_vae(vae)


def cells(space, size):
    """Rows and columns of latents of frames."""
    return tuple(edge // space.spatial_compression for edge in size)


def posterior_mode(vae, frames):
    """Unscaled latents by one plain call of the VAE."""
    return vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode().transpose(1, 2)


def settings(vae):
    return {key: value for key, value in vars(vae).items() if key.startswith(SETTINGS)}


def test_every_family_has_a_row():
    assert {family.of for family in FAMILIES} == set(VAE_FAMILIES)


def test_a_vae_that_is_not_published_is_known_by_its_weights(family, vae, space):
    prefix = vae_family(vae).kind
    assert space.id.startswith(f"{prefix}-")
    assert len(space.id) == len(f"{prefix}-") + 12
    assert LatentSpace.from_vae(family.make()) == space
    assert LatentSpace.from_vae(family.make().to(torch.bfloat16)).id == space.id
    assert not LatentSpace.from_vae(family.make(seed=1)).same_latents(space)
    assert LatentSpace.from_vae(vae, id="mine").id == "mine"
    assert LatentSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
@torch.no_grad()
def test_encode_equals_diffusers(family, vae, space, steps):
    time = space.video_frames(steps)
    frames = torch.cat([clip(time, *family.small), clip(time, *family.small, seed=1)])
    latents = space.encode(frames, vae)
    assert latents.shape == (2, steps, space.channels, *cells(space, family.small))
    raw = torch.cat([posterior_mode(vae, one) for one in frames.split(1)])
    torch.testing.assert_close(latents, space.scale(raw), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-3
    assert (latents[0] - latents[1]).abs().max() > 1e-3


@pytest.mark.parametrize("steps", range(1, 9))
@torch.no_grad()
def test_decode_equals_diffusers_for_any_length(family, vae, space, steps):
    latents = latents_of(space, steps, *cells(space, family.small), batch=2)
    frames = space.decode(latents, vae)
    assert frames.shape == (2, space.video_frames(steps), 3, *family.small)
    if family.even or steps % 2:
        raw = space.unscale(latents).transpose(1, 2)
        expected = torch.cat([family.decoded(vae, one) for one in raw.split(1)])
        torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    assert frames.std() > 0.01
    assert (frames[0] - frames[1]).abs().max() > 1e-3
    assert space.encode(frames, vae).shape == latents.shape


@torch.no_grad()
def test_tiles_equal_diffusers_tiles(family, vae, space):
    frames = clip(space.video_frames(2), *family.large)
    latents = latents_of(space, 1, *cells(space, family.large))
    tiled, whole = (space.encode(frames, vae, tile=tile) for tile in (family.tile, None))
    decoded, undivided = (space.decode(latents, vae, tile=tile) for tile in (family.tile, None))
    assert not torch.allclose(tiled, whole, atol=1e-5), "nothing was tiled"
    assert not torch.allclose(decoded, undivided, atol=1e-5), "nothing was tiled"
    own = family.make()
    family.enable_own_tiles(own, encoding=True)
    torch.testing.assert_close(
        tiled, space.scale(posterior_mode(own, frames)), atol=1e-5, rtol=1e-5
    )
    family.enable_own_tiles(own, encoding=False)
    pixels = family.decoded(own, space.unscale(latents).transpose(1, 2))
    torch.testing.assert_close(decoded, pixels, atol=1e-5, rtol=0)


def test_settings_by_default_are_those_of_diffusers(family):
    vae = family.make()
    runs = vae_family(vae)
    before = settings(vae)
    vae.enable_tiling(**runs.tiling(runs.tile, encoding=False))
    assert settings(vae) == {**before, **runs.settings, "use_tiling": True}


@pytest.mark.parametrize("tiled", [False, True])
@torch.no_grad()
def test_what_was_set_on_the_vae_plays_no_part_and_is_put_back(
    family, vae, space, tiled, monkeypatch
):
    tile, size = (family.tile, family.large) if tiled else (None, family.small)
    steps = 2 if tiled else 7  # 7: long enough to be cut in time, where a family does so
    latents = latents_of(space, steps, *cells(space, size))
    frames = clip(space.video_frames(steps), *size)
    expected = space.encode(frames, vae, tile=tile), space.decode(latents, vae, tile=tile)
    other = family.make()
    for key, value in settings(other).items():
        setattr(other, key, not value if isinstance(value, bool) else value * 2)
    other.use_slicing = False
    before = settings(other)
    assert len(before) >= 6
    assert torch.equal(space.encode(frames, other, tile=tile), expected[0])
    assert torch.equal(space.decode(latents, other, tile=tile), expected[1])
    assert settings(other) == before
    seen = []

    def broken(*_):
        seen.append(settings(other))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(other, "encode", broken)
    monkeypatch.setattr(other, "decode", broken)
    for run, argument in ((space.encode, frames), (space.decode, latents)):
        with pytest.raises(RuntimeError, match="out of memory"):
            run(argument, other, tile=tile)
        assert settings(other) == before
    assert [during["use_slicing"] for during in seen] == [True, True]
    assert [during["use_tiling"] for during in seen] == [tiled, tiled]


@torch.no_grad()
def encoded(space, frames, vae, tile):
    return space.encode(frames, vae, tile=tile)


def test_tiles_that_one_thread_asks_for_are_not_those_of_another(family, space, monkeypatch):
    vae, frames, tiles = family.make(), clip(1, *family.large), [None, family.tile] * 2
    alone = [encoded(space, frames, vae, tile) for tile in tiles]
    met, encode = Barrier(len(tiles)), vae._encode

    def meeting(pixels, **how):
        # All threads come this far, with their settings made, unless they have to wait.
        with suppress(BrokenBarrierError):
            met.wait(timeout=0.2)
        return encode(pixels, **how)

    monkeypatch.setattr(vae, "_encode", meeting)
    with ThreadPoolExecutor(len(tiles)) as pool:
        futures = [pool.submit(encoded, space, frames, vae, tile) for tile in tiles]
        together = [future.result() for future in futures]
    for ours, theirs in zip(alone, together, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_mode_is_deterministic_and_a_generator_samples(family, vae, space):
    frames = clip(space.video_frames(2), *family.small)
    mode = space.encode(frames, vae)
    assert torch.equal(mode, space.encode(frames, vae))
    draws = [
        space.encode(frames, vae, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert not torch.allclose(draws[0], mode)


@pytest.mark.parametrize("tiled", [False, True])
def test_gradients_reach_every_frame_and_latent_in_the_callers_mode(family, vae, space, tiled):
    if family.name == "mochi" and DIFFUSERS.minor < 33:
        pytest.skip("diffusers 0.32 cannot encode with gradients")
    tile, size = (family.tile, (family.tile[0], family.large[1])) if tiled else (None, family.small)
    frames = clip(space.video_frames(2), *size)
    latents = latents_of(space, 2, *cells(space, size))
    for run, point in ((space.encode, frames), (space.decode, latents)):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(run(point, vae, tile=tile).square().sum(), point)
        assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
        with torch.no_grad():
            assert not run(point, vae, tile=tile).requires_grad


@torch.no_grad()
def test_it_runs_in_the_vaes_type_and_returns_float32(family, space):
    vae = family.make().to(torch.bfloat16)
    latents = space.encode(clip(space.video_frames(2), *family.small), vae)
    frames = space.decode(latents, vae)
    assert latents.dtype == frames.dtype == torch.float32
    assert 0 <= frames.min() <= frames.max() <= 1


def test_frames_and_tiles_that_make_broken_latents_are_refused(family, vae, space):
    side, apart = space.spatial_compression, space.temporal_compression
    good = clip(1, *family.large)
    refused = [
        (
            clip(apart, *family.small),
            None,
            rf"{apart}f \+ 1 frames \(1, {apart + 1}, .* got {apart}",
        ),
        (clip(1, side, side + side // 2), None, rf"multiples of {side}, got {side}x"),
        (good * 255, None, r"in \[0, 1\].* divide uint8 frames by 255"),
        (good * 2 - 1, None, r"in \[0, 1\], got -"),
        (good * float("nan"), None, r"in \[0, 1\], got nan"),
        *((good, tile, message) for tile, message in family.bad_tiles.items()),
    ]
    for frames, tile, message in refused:
        with pytest.raises(ValueError, match=message):
            space.encode(frames, vae, tile=tile)
    for tile, message in family.bad_tiles.items():
        with pytest.raises(ValueError, match=message):
            space.decode(latents_of(space, 1), vae, tile=tile)


def test_a_vae_of_another_space_is_refused(family, space):
    others = [other.make() for other in FAMILIES if other.of != family.of]
    for other in others[:2]:
        for run, argument in ((space.encode, clip(1)), (space.decode, latents_of(space, 1))):
            with pytest.raises(
                LatentSpaceError, match=r"expected a VAE with .* got one with .*load"
            ):
                run(argument, other)
