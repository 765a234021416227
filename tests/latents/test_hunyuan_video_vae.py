"""HunyuanVideo's VAE against unmodified diffusers, and against its pipeline."""

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.video_processor import VideoProcessor

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.hunyuan_video_vae import DEFAULT_TILE, tile_stride
from tests.latents.tiny import make_vae, moving_frames


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    config = {
        "block_out_channels": (8, 8, 8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        **changes,
    }
    return AutoencoderKLHunyuanVideo(**config).eval()


@pytest.fixture(scope="module")
def vae():
    return tiny()


@pytest.fixture(scope="module")
def space(vae):
    return LatentSpace.from_vae(vae)


def clip(time, height=16, width=24, seed=0):
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def posterior_mode(vae, frames):
    return vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()


def pipeline_frames(vae, latents):
    """The lines with which `HunyuanVideoPipeline` decodes BCTHW latents."""
    latents = latents.to(vae.dtype) / vae.config.scaling_factor
    video = vae.decode(latents, return_dict=False)[0]
    return VideoProcessor(vae_scale_factor=8).postprocess_video(video, output_type="pt")


def settings(vae):
    return {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}


def test_the_published_vae_is_known_by_its_config():
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo()  # the class defaults are those of the published model
        others = [
            AutoencoderKLHunyuanVideo(scaling_factor=0.5),
            AutoencoderKLHunyuanVideo(latent_channels=32),
            AutoencoderKLHunyuanVideo(block_out_channels=(128, 256, 512, 1024)),
        ]
    space = LatentSpace.from_vae(vae)
    assert (space.id, space.layout, space.scaling_factor) == ("hunyuan-video", "BCTHW", 0.476986)
    assert (space.channels, space.spatial_compression, space.temporal_compression) == (16, 8, 4)
    assert space.shift_factor is space.mean is space.std is None
    for other in others:
        with pytest.raises(ValueError, match="meta device"):  # their name needs their weights
            LatentSpace.from_vae(other)


def test_any_other_vae_is_known_by_its_weights(space):
    assert space.id.startswith("hunyuan-video-vae-")
    assert LatentSpace.from_vae(tiny(0)) == space
    assert not LatentSpace.from_vae(tiny(1)).same_latents(space)
    assert LatentSpace.from_vae(tiny(), id="mine").id == "mine"


# 16 frames are encoded at once, and more in parts that begin every 12 frames.
@pytest.mark.parametrize("time", [1, 5, 13, 17, 25, 29])
@torch.no_grad()
def test_encode_equals_diffusers(vae, space, time):
    frames = torch.cat([clip(time), clip(time, seed=1)])
    latents = space.encode(frames, vae)
    assert latents.shape == (2, space.latent_frames(time), 4, 2, 3)
    expected = posterior_mode(vae, frames) * vae.config.scaling_factor
    torch.testing.assert_close(latents, space.to_btchw(expected), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-3


@pytest.mark.parametrize("steps", range(1, 9))
@torch.no_grad()
def test_decode_equals_the_pipelines_for_odd_and_even_lengths(vae, space, steps):
    latents = torch.randn(2, steps, 4, 2, 3)
    frames = space.decode(latents, vae)
    assert frames.shape == (2, space.video_frames(steps), 3, 16, 24)
    expected = pipeline_frames(vae, space.from_btchw(latents))
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=0)
    assert frames.std() > 0.01
    assert space.encode(frames, vae).shape == latents.shape


def test_scaling_is_that_of_the_pipeline(space):
    raw = torch.randn(1, 2, 4, 2, 3)
    assert torch.equal(space.scale(raw), raw * 0.476986)
    torch.testing.assert_close(space.unscale(space.scale(raw)), raw)


@pytest.fixture(scope="module")
def pipe(vae):
    torch.manual_seed(0)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=8,
        pooled_projection_dim=6,
        rope_axes_dim=(4, 6, 6),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    pipe = HunyuanVideoPipeline(None, None, transformer, vae, scheduler, None, None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("num_frames", [9, 13, 21])
@torch.no_grad()
def test_latents_of_a_real_pipeline(pipe, vae, num_frames):
    space = LatentSpace.from_pipeline(pipe)
    assert space.same_latents(LatentSpace.from_vae(vae))
    shared = {
        "prompt_embeds": torch.ones(1, 3, 8),
        "prompt_attention_mask": torch.ones(1, 3),
        "pooled_prompt_embeds": torch.ones(1, 6),
        "num_frames": num_frames,
        "height": 16,
        "width": 32,
        "num_inference_steps": 1,
    }
    seed = torch.Generator()
    generated = pipe(**shared, output_type="latent", generator=seed.manual_seed(0)).frames
    video = pipe(**shared, output_type="pt", generator=seed.manual_seed(0)).frames
    latents = space.to_btchw(generated)
    assert latents.shape == (1, space.latent_frames(num_frames), 4, 2, 4)
    assert torch.equal(space.unpad(latents, num_frames), latents)
    assert torch.equal(space.from_btchw(latents), generated)
    torch.testing.assert_close(space.decode(latents, vae), video, atol=1e-5, rtol=0)
    assert video.std() > 0.01


@pytest.mark.parametrize("time", [5, 17])
@torch.no_grad()
def test_tiles_equal_diffusers_tiles(space, time):
    vae, frames = tiny(), clip(time, 48, 56)
    tiled = space.encode(frames, vae, tile=(32, 32))
    whole = space.encode(frames, vae, tile=None)
    decoded = space.decode(tiled, vae, tile=(32, 32))
    assert torch.equal(whole, space.encode(frames, vae)), "smaller than the default tile"
    vae.enable_tiling(32, 32, tile_sample_stride_height=24, tile_sample_stride_width=24)
    expected = space.to_btchw(posterior_mode(vae, frames)) * vae.config.scaling_factor
    torch.testing.assert_close(tiled, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        decoded, pipeline_frames(vae, space.from_btchw(tiled)), atol=1e-5, rtol=0
    )
    assert not torch.allclose(tiled, whole, atol=1e-5), "nothing was tiled"
    # a VAE that somebody told to tile still encodes whole frames
    assert torch.equal(space.encode(frames, vae, tile=None), whole)


@torch.no_grad()
def test_latents_do_not_depend_on_what_was_set_on_the_vae(space):
    vae, frames, latents = tiny(), clip(25), torch.randn(1, 7, 4, 2, 3)
    encoded, decoded = space.encode(frames, vae), space.decode(latents, vae)
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    assert not torch.allclose(space.to_btchw(posterior_mode(vae, frames)) * 0.476986, encoded)
    assert torch.equal(space.encode(frames, vae), encoded)
    assert torch.equal(space.decode(latents, vae), decoded)
    vae.enable_tiling(16, 16, 8, 8, 8, 4)
    vae.use_framewise_encoding = vae.use_framewise_decoding = True
    assert torch.equal(space.encode(frames, vae), encoded)
    assert torch.equal(space.decode(latents, vae), decoded)


def test_tiles_of_diffusers_are_the_default():
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo()
    assert (vae.tile_sample_min_height, vae.tile_sample_min_width) == DEFAULT_TILE
    assert vae.tile_sample_stride_height == vae.tile_sample_stride_width == 192
    assert [tile_stride(side, 8) for side in (16, 32, 240, 256, 360)] == [8, 24, 176, 192, 264]
    assert (vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames) == (16, 12)


@pytest.mark.parametrize("tile", [DEFAULT_TILE, (240, 360), (32, 24), None])
@torch.no_grad()
def test_settings_of_the_vae_are_put_back_also_after_an_error(space, tile, monkeypatch):
    vae = tiny()
    vae.enable_tiling(16, 24, 20, 8, 16, 16)
    vae.use_framewise_decoding = False
    before = settings(vae)
    assert len(before) == 10
    space.encode(clip(1, 40, 48), vae, tile=tile)
    space.decode(torch.randn(1, 1, 4, 4, 6), vae, tile=tile)
    assert before == settings(vae)

    def broken(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vae, "encode", broken)
    monkeypatch.setattr(vae, "decode", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.encode(clip(1), vae, tile=tile)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.decode(torch.randn(1, 1, 4, 2, 2), vae, tile=tile)
    assert before == settings(vae)


def test_mode_is_deterministic_and_a_generator_samples(vae, space):
    with torch.no_grad():
        mode = space.encode(clip(5), vae)
        assert torch.equal(mode, space.encode(clip(5), vae))
        draws = [
            space.encode(clip(5), vae, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert not torch.allclose(draws[0], mode)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("time", [5, 29])
def test_gradients_reach_every_frame_and_equal_central_differences(space, time, tile):
    vae = tiny().double()
    frames = clip(time).double() * 0.9 + 0.05
    latents = torch.randn(1, space.latent_frames(time), 4, 2, 3, dtype=torch.float64)
    for run, point in ((space.encode, frames), (space.decode, latents)):
        point.requires_grad_()
        out = run(point, vae, tile=tile)
        weight, direction, step = torch.randn_like(out), torch.randn_like(point), 1e-4
        (gradient,) = torch.autograd.grad((out * weight).sum(), point)
        assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
        with torch.no_grad():
            up, down = (run(point + s * step * direction, vae, tile=tile) for s in (1, -1))
        assert not up.requires_grad
        slope = ((up - down).double() / (2 * step) * weight).sum()
        # both are cast to float32 on the way out
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=5e-3, atol=2e-2)


def test_runs_in_the_vaes_type_and_returns_float32(space):
    vae = tiny().to(torch.bfloat16)
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
        (clip(1, 20, 24), {}, "multiples of 8, got 20x24"),
        (clip(1) * 255, {}, r"in \[0, 1\].* divide uint8 frames by 255"),
        (clip(1) * 2 - 1, {}, r"in \[0, 1\], got -"),
        (clip(1) * float("nan"), {}, r"in \[0, 1\], got nan"),
        (clip(1), {"tile": (64, 60)}, r"multiples of 8 pixels.* got \(64, 60\)"),
        (clip(1), {"tile": (8, 64)}, r"at least 16, got \(8, 64\)"),
    ],
)
def test_encode_refuses(vae, space, frames, options, message):
    with pytest.raises(ValueError, match=message):
        space.encode(frames, vae, **options)


@pytest.mark.parametrize("other", [tiny(latent_channels=16), tiny(scaling_factor=0.5), make_vae()])
def test_a_vae_of_another_space_is_refused(space, other):
    with pytest.raises(LatentSpaceError, match="load the VAE of this space"):
        space.encode(clip(1), other)
    with pytest.raises(LatentSpaceError, match="load the VAE of this space"):
        space.decode(torch.randn(1, 1, 4, 2, 2), other)
