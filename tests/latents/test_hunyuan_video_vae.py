"""HunyuanVideo's VAE: the published one, and what its pipeline decodes."""

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.vaes import vae_family
from tests.latents.tiny import BY_NAME, clip, latents_of

TINY = BY_NAME["hunyuan-video"]


@pytest.fixture(scope="module")
def vae():
    return TINY.make()


@pytest.fixture(scope="module")
def space(vae):
    return LatentSpace.from_vae(vae)


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


def test_strides_are_three_quarters_of_a_tile_in_whole_latents(vae):
    runs = vae_family(vae)
    edges = (16, 32, 240, 256, 360)
    assert [runs.tile_stride(edge) for edge in edges] == [8, 24, 176, 192, 264]


@torch.no_grad()
def test_clips_are_cut_in_time_as_diffusers_does_by_default_whatever_is_set(vae, space):
    # 16 frames are encoded at once, and more in parts that begin every 12 frames.
    frames, latents = clip(25, 16, 24), latents_of(space, 7)
    encoded, decoded = space.encode(frames, vae), space.decode(latents, vae)
    other = TINY.make()
    other.use_framewise_encoding = other.use_framewise_decoding = False
    raw = other.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode().transpose(1, 2)
    assert not torch.allclose(space.scale(raw), encoded, atol=1e-5)
    assert torch.equal(space.encode(frames, other), encoded)
    assert torch.equal(space.decode(latents, other), decoded)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("time", [5, 29])
def test_gradients_equal_central_differences(space, time, tile):
    vae = TINY.make().double()
    frames = clip(time, 16, 24).double() * 0.9 + 0.05
    latents = latents_of(space, space.latent_frames(time)).double()
    for run, point in ((space.encode, frames), (space.decode, latents)):
        point.requires_grad_()
        out = run(point, vae, tile=tile)
        weight, direction, step = torch.randn_like(out), torch.randn_like(point), 1e-4
        (gradient,) = torch.autograd.grad((out * weight).sum(), point)
        with torch.no_grad():
            up, down = (run(point + s * step * direction, vae, tile=tile) for s in (1, -1))
        slope = ((up - down).double() / (2 * step) * weight).sum()
        # both are cast to float32 on the way out
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=5e-3, atol=2e-2)


def test_another_scaling_factor_is_refused(space):
    with pytest.raises(LatentSpaceError, match=r"'scaling_factor': 0\.5.*load the VAE of this"):
        space.encode(clip(1), TINY.make(scaling_factor=0.5))
