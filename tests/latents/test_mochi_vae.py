"""Mochi's VAE against unmodified diffusers: the model, and the pipeline around it."""

import json
from importlib.metadata import version

import pytest
import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.mochi_vae import tile_stride
from tests.latents.tiny import make_vae, moving_frames

OLD = version("diffusers").startswith("0.32.")


def mochi_vae(seed=0, **changes):
    """A VAE with 32 channels everywhere, the fewest that its norms take, 12 in the latents."""
    torch.manual_seed(seed)
    config = {
        "encoder_block_out_channels": (32, 32, 32, 32),
        "decoder_block_out_channels": (32, 32, 32, 32),
        "layers_per_block": (1, 1, 1, 1, 1),
        **changes,
    }
    return AutoencoderKLMochi(**config).eval()


def mochi_pipeline(vae):
    """The real pipeline without a text encoder; it needs prompts that are embedded already."""
    torch.manual_seed(1)
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=16,
        time_embed_dim=16,
        max_sequence_length=4,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipe = MochiPipeline(scheduler, vae, None, None, transformer.eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generated(pipe, output_type, **options):
    return pipe(
        prompt_embeds=torch.ones(1, 4, 16),
        prompt_attention_mask=torch.ones(1, 4, dtype=torch.bool),
        num_inference_steps=2,
        guidance_scale=1.0,
        height=32,
        width=48,
        num_frames=13,
        generator=torch.Generator().manual_seed(0),
        output_type=output_type,
        **options,
    ).frames


@pytest.fixture(scope="module")
def vae():
    return mochi_vae()


@pytest.fixture(scope="module")
def space(vae):
    return LatentSpace.from_vae(vae)


def clip(time, height=16, width=24, seed=0):
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def reference(vae, frames):
    """Latents as the inverse of what the pipeline does before it decodes."""
    z = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()
    mean, std = (torch.tensor(v).view(1, 12, 1, 1, 1) for v in
                 (vae.config.latents_mean, vae.config.latents_std))  # fmt: skip
    return ((z - mean) * vae.config.scaling_factor / std).transpose(1, 2)


def test_the_published_vae_is_known_by_its_config():
    with torch.device("meta"):
        published = AutoencoderKLMochi()
    space = LatentSpace.from_vae(published)
    assert space.id == "mochi-1"
    assert (space.channels, space.layout, space.scaling_factor) == (12, "BCTHW", 1.0)
    assert (space.spatial_compression, space.temporal_compression) == (8, 6)
    assert space.mean == published.config.latents_mean
    assert space.std == published.config.latents_std
    assert LatentSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize(
    "changes",
    [
        {"latents_std": (2.0,) * 12},
        {"latents_mean": None, "latents_std": None},
        {"scaling_factor": 0.5},
    ],
)
def test_other_vaes_are_named_after_their_weights(vae, changes):
    names = {LatentSpace.from_vae(mochi_vae(seed)).id for seed in (0, 0, 1)}
    assert len(names) == 2
    assert all(name.startswith("mochi-vae-") for name in names)
    with torch.device("meta"):
        other = AutoencoderKLMochi(**changes)
    with pytest.raises(ValueError, match="meta device"):  # so it is not taken for the published one
        LatentSpace.from_vae(other)


@pytest.mark.parametrize("time", [1, 7, 13, 19, 25])
@torch.no_grad()
def test_encode_equals_diffusers(vae, space, time):
    frames = torch.cat([clip(time), clip(time, seed=1)])
    latents = space.encode(frames, vae)
    assert latents.shape == (2, (time - 1) // 6 + 1, 12, 2, 3)
    torch.testing.assert_close(latents, reference(vae, frames), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-2


@pytest.mark.parametrize("steps", range(1, 6))
@torch.no_grad()
def test_any_number_of_latents_gives_6f_plus_1_frames(vae, space, steps):
    latents = torch.randn(2, steps, 12, 2, 3)
    frames = space.decode(latents, vae)
    assert frames.shape == (2, 6 * (steps - 1) + 1, 3, 16, 24)
    assert frames.shape[1] == space.video_frames(steps)
    assert space.encode(frames, vae).shape == latents.shape


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scaling_factor": 0.5},
        {"scaling_factor": 0.5, "latents_mean": None, "latents_std": None},
    ],
)
def test_generated_latents_decode_to_the_pipelines_own_frames(changes):
    vae = mochi_vae(**changes)
    pipe, space = mochi_pipeline(vae), LatentSpace.from_vae(vae)
    latents = generated(pipe, "latent")
    assert latents.shape == (1, 12, 3, 4, 6)
    inside = space.to_btchw(latents)
    assert inside.shape == (1, 3, 12, 4, 6)
    assert torch.equal(space.from_btchw(inside), latents)
    frames = generated(pipe, "pt")
    with torch.no_grad():
        torch.testing.assert_close(space.decode(inside, vae), frames, atol=1e-5, rtol=0)
    assert frames.std() > 0.01
    torch.testing.assert_close(space.scale(space.unscale(inside)), inside)
    assert LatentSpace.from_pipeline(pipe) == space


@torch.no_grad()
def test_tiles_equal_diffusers_tiles(space):
    vae = mochi_vae()
    frames = clip(7, 40, 56)
    whole, tiled = space.encode(frames, vae), space.encode(frames, vae, tile=(32, 32))
    decoded = space.decode(tiled, vae, tile=(32, 32))
    vae.enable_tiling(32, 32, 24, 24)
    torch.testing.assert_close(tiled, reference(vae, frames), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tiled, whole, atol=1e-3), "nothing was tiled"
    pixels = vae.decode(space.unscale(tiled).transpose(1, 2)).sample
    pixels = (pixels.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, pixels, atol=1e-5, rtol=1e-5)


def test_the_published_tiles_have_the_stride_of_diffusers():
    with torch.device("meta"):
        vae = AutoencoderKLMochi()
    assert vae.tile_sample_min_height == vae.tile_sample_min_width == 256
    assert tile_stride(8, 256) == vae.tile_sample_stride_height == vae.tile_sample_stride_width


@pytest.mark.parametrize("tile", [(240, 360), (16, 24), (40, 48)])
@torch.no_grad()
def test_tiles_of_any_whole_latents_cover_the_frame(vae, space, tile):
    assert all(0 < tile_stride(8, edge) < edge and tile_stride(8, edge) % 8 == 0 for edge in tile)
    latents = space.encode(clip(1, 72, 96), vae, tile=tile)
    assert latents.shape == (1, 1, 12, 9, 12)
    assert space.decode(latents, vae, tile=tile).shape == (1, 1, 3, 72, 96)


@pytest.mark.parametrize("tile", [(32, 32), None])
@torch.no_grad()
def test_settings_of_the_vae_are_put_back_also_after_an_error(space, tile, monkeypatch):
    vae = mochi_vae()
    vae.enable_tiling(16, 24, 8, 16)
    vae.drop_last_temporal_frames = False
    plain = {k: v for k, v in vars(vae).items() if isinstance(v, (bool, int))}
    whole = LatentSpace.from_vae(mochi_vae()).encode(clip(7, 56, 48), mochi_vae(), tile=None)
    latents = space.encode(clip(7, 56, 48), vae, tile=tile)
    assert torch.equal(latents, whole) == (tile is None), "the VAE's own tiles were used"
    assert space.decode(latents, vae, tile=tile).shape[1] == 7
    for name in ("encode", "decode"):

        def broken(_):
            assert vae.use_slicing
            raise RuntimeError("out of memory")

        monkeypatch.setattr(vae, name, broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.encode(clip(1), vae, tile=tile)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.decode(latents, vae, tile=tile)
    assert plain == {k: v for k, v in vars(vae).items() if isinstance(v, (bool, int))}


def test_mode_is_deterministic_and_a_generator_samples(vae, space):
    frames = clip(7)
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


@pytest.mark.skipif(OLD, reason="diffusers 0.32 cannot encode with gradients")
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_gradients_reach_all_frames_and_latents(vae, space, tile):
    frames = clip(7).requires_grad_()
    latents = space.encode(frames, vae, tile=tile)
    (gradient,) = torch.autograd.grad(latents.square().sum(), frames)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).all()
    point = torch.randn(1, 2, 12, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(space.decode(point, vae, tile=tile).sum(), point)
    assert (gradient.abs().sum(dim=(0, 2)) > 0).all()
    with torch.no_grad():
        assert not space.encode(frames, vae).requires_grad


def test_runs_in_the_vaes_type_and_returns_float32(space):
    vae = mochi_vae().to(torch.bfloat16)
    with torch.no_grad():
        latents = space.encode(clip(7), vae)
        frames = space.decode(latents, vae)
    assert latents.dtype == frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.max() <= 1


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (clip(5), {}, r"6f \+ 1 frames \(1, 7, 13, .* got 5"),
        (clip(1, 20, 24), {}, "multiples of 8, got 20x24"),
        (clip(1) * 255, {}, r"in \[0, 1\].* divide uint8 frames by 255"),
        (clip(1), {"tile": (36, 32)}, r"multiples of 8 pixels, at least 16, got \(36, 32\)"),
        (clip(1), {"tile": (32, 8)}, r"at least 16, got \(32, 8\)"),
    ],
)
def test_encode_refuses(vae, space, frames, options, message):
    with pytest.raises(ValueError, match=message):
        space.encode(frames, vae, **options)


def test_a_vae_of_another_space_is_refused(vae, space):
    rescaled = mochi_vae(latents_std=(2.0,) * 12)
    latents = torch.randn(1, 1, 12, 2, 2)
    with pytest.raises(LatentSpaceError, match="load the VAE of this space"):
        space.decode(latents, rescaled)
    with pytest.raises(LatentSpaceError, match=r"'channels': 12.*'channels': 4"):
        space.decode(latents, make_vae())
    with pytest.raises(LatentSpaceError, match="one of which Mochi's pipeline would ignore"):
        LatentSpace.from_vae(mochi_vae(latents_mean=None))
