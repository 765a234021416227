"""The LTX VAE against unmodified diffusers: the VAE's own calls and whole tiny pipelines."""

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    __version__ as diffusers_version,
)
from hypothesis import given, settings, strategies as st
from packaging.version import Version

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.ltx_vae import LTX_TILE, unpack_tokens
from tests.latents.tiny import moving_frames

NARROW = {
    "0.9.0": {
        "block_out_channels": (8, 8, 8, 8),
        "decoder_block_out_channels": (8, 8, 8, 8),
        "layers_per_block": (1, 1, 1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
    },
    "0.9.5": {
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
}
"""Published configs, a few channels wide."""


def make_vae(kind="0.9.0", seed=0, **changes):
    torch.manual_seed(seed)
    vae = AutoencoderKLLTXVideo(**{"latent_channels": 8, **NARROW[kind], **changes})
    vae.latents_mean.normal_(0, 0.3)
    vae.latents_std.uniform_(0.5, 2)
    return vae.eval().requires_grad_(False)


def clip(time, height=32, width=64, seed=0):
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def latents_of(steps, rows=2, columns=3, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, 8, rows, columns, generator=generator)


def pipeline_frames(vae, latents):
    """Frames of scaled latents by the decoding lines of `LTXPipeline.__call__`, all defaults."""
    raw = LTXPipeline._denormalize_latents(
        latents.transpose(1, 2), vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )
    timestep = torch.zeros(len(latents)) if vae.config.timestep_conditioning else None
    video = vae.decode(raw, timestep, return_dict=False)[0]
    return (video.transpose(1, 2) / 2 + 0.5).clamp(0, 1)


needs_0_9_5 = pytest.mark.skipif(
    Version(diffusers_version) < Version("0.33"), reason="diffusers 0.33 brought LTX 0.9.5"
)
every_kind = pytest.mark.parametrize("kind", ["0.9.0", pytest.param("0.9.5", marks=needs_0_9_5)])


@every_kind
def test_space_is_read_from_the_vae(kind):
    vae = make_vae(kind)
    space = LatentSpace.from_vae(vae)
    assert (space.channels, space.spatial_compression, space.temporal_compression) == (8, 32, 8)
    assert space.layout == "BCTHW"
    assert space.scaling_factor == 1.0
    assert torch.equal(torch.tensor(space.mean), vae.latents_mean)
    assert torch.equal(torch.tensor(space.std), vae.latents_std)
    assert LatentSpace.from_dict(space.to_dict()) == space


def test_the_class_defaults_compress_32_by_32_by_8():
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo()
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio) == (32, 8)
    assert vae.config.latent_channels == 128
    assert (vae.tile_sample_min_height, vae.tile_sample_min_width) == LTX_TILE
    assert (vae.tile_sample_stride_height, vae.tile_sample_stride_width) == (448, 448)
    with pytest.raises(LatentSpaceError, match=r"meta device.*load the weights"):
        LatentSpace.from_vae(vae, id="ltx")


def test_names_follow_the_weights_whatever_their_type():
    name = LatentSpace.from_vae(make_vae()).id
    assert name.startswith("ltx-vae-")
    assert name == LatentSpace.from_vae(make_vae().to(torch.bfloat16)).id
    assert name != LatentSpace.from_vae(make_vae(seed=1)).id


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_scaling_equals_the_pipelines_normalisation(factor):
    vae = make_vae(scaling_factor=factor)
    space, raw = LatentSpace.from_vae(vae), 3 * latents_of(3)
    statistics = (vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    scaled = LTXPipeline._normalize_latents(raw.transpose(1, 2), *statistics).transpose(1, 2)
    torch.testing.assert_close(space.scale(raw), scaled, rtol=1e-6, atol=1e-6)
    back = LTXPipeline._denormalize_latents(scaled.transpose(1, 2), *statistics).transpose(1, 2)
    torch.testing.assert_close(space.unscale(scaled), back, rtol=1e-6, atol=1e-6)
    if factor == 1.0:
        assert torch.equal(space.scale(raw), scaled)
        assert torch.equal(space.unscale(scaled), back)


@every_kind
@pytest.mark.parametrize("time", [1, 9, 17, 25])
@torch.no_grad()
def test_encode_equals_diffusers(kind, time):
    vae = make_vae(kind)
    space = LatentSpace.from_vae(vae)
    frames = torch.cat([clip(time), clip(time, seed=1)])
    latents = space.encode(frames, vae, tile=None)
    assert latents.shape == (2, space.latent_frames(time), 8, 1, 2)
    raw = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()
    expected = LTXPipeline._normalize_latents(raw, vae.latents_mean, vae.latents_std)
    torch.testing.assert_close(latents, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-3


@every_kind
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@torch.no_grad()
def test_any_number_of_latents_gives_8f_plus_1_frames(kind, steps):
    vae = make_vae(kind)
    space, latents = LatentSpace.from_vae(vae), latents_of(steps, batch=2)
    frames = space.decode(latents, vae, tile=None)
    assert frames.shape == (2, space.video_frames(steps), 3, 64, 96)
    torch.testing.assert_close(frames, pipeline_frames(vae, latents), atol=1e-5, rtol=0)
    assert (frames[0] - frames[1]).abs().max() > 1e-2
    assert space.encode(frames, vae, tile=None).shape == latents.shape


def make_pipeline(cls, kind):
    torch.manual_seed(1)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, caption_channels=8, num_layers=1,
    )  # fmt: skip
    pipe = cls(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=make_vae(kind),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe, output_type):
    return pipe(
        height=64, width=96, num_frames=17, num_inference_steps=2, guidance_scale=1.0,
        prompt_embeds=torch.ones(2, 4, 8), prompt_attention_mask=torch.ones(2, 4),
        generator=torch.Generator().manual_seed(0), output_type=output_type,
    ).frames  # fmt: skip


@every_kind
@torch.no_grad()
def test_packed_latents_of_a_pipeline_decode_to_its_frames(kind):
    pipe = make_pipeline(LTXPipeline, kind)
    space = LatentSpace.from_pipeline(pipe)
    assert space.same_latents(LatentSpace.from_vae(pipe.vae))
    tokens = generate(pipe, "latent")
    assert tokens.shape == (2, 3 * 2 * 3, 8)
    latents = unpack_tokens(tokens, (space.latent_frames(17), 64 // 32, 96 // 32), space.channels)
    space.check(latents)
    frames = space.decode(latents, pipe.vae, tile=None)
    torch.testing.assert_close(frames, generate(pipe, "pt"), atol=1e-5, rtol=0)


@needs_0_9_5
@torch.no_grad()
def test_latents_of_the_condition_pipeline_are_unpacked_already():
    from diffusers import LTXConditionPipeline

    pipe = make_pipeline(LTXConditionPipeline, "0.9.5")
    space = LatentSpace.from_pipeline(pipe)
    latents = space.to_btchw(generate(pipe, "latent"))
    assert latents.shape == (2, 3, 8, 2, 3)
    frames = space.decode(latents, pipe.vae, tile=None)
    torch.testing.assert_close(frames, generate(pipe, "pt"), atol=1e-5, rtol=0)


sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes, sizes)
@settings(max_examples=25, deadline=None)
def test_unpacking_undoes_the_pipelines_packing(batch, time, channels, height, width):
    latents = torch.randn(batch, time, channels, height, width)
    tokens = LTXPipeline._pack_latents(latents.transpose(1, 2))
    assert torch.equal(unpack_tokens(tokens, (time, height, width), channels), latents)
    theirs = LTXPipeline._unpack_latents(tokens, time, height, width).transpose(1, 2)
    assert torch.equal(theirs, latents)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((1, 18, 8), (3, 2, 4), "3 x 2 x 4 = 24 tokens, got 18"),
        ((1, 18, 7), (3, 2, 3), r"\(batch, token, 8\), got shape \(1, 18, 7\)"),
        ((1, 0, 8), (0, 2, 3), "0 x 2 x 3 = 0 tokens"),
        ((1, 6, 8), (-1, -2, 3), "-1 x -2 x 3 = 6 tokens"),
    ],
)
def test_tokens_of_another_size_are_not_unpacked(shape, size, message):
    with pytest.raises(LatentSpaceError, match=message):
        unpack_tokens(torch.zeros(shape), size, 8)


@every_kind
@torch.no_grad()
def test_tiles_equal_diffusers_tiles(kind):
    vae, tile = make_vae(kind), (256, 256)
    space = LatentSpace.from_vae(vae)
    frames = clip(1, 288, 320)
    tiled, whole = (space.encode(frames, vae, tile=size) for size in (tile, None))
    latents = latents_of(1, 9, 10)
    decoded = space.decode(latents, vae, tile=tile)
    assert not torch.allclose(decoded, space.decode(latents, vae, tile=None), atol=1e-5)
    vae.enable_tiling(*tile, tile_sample_stride_height=224, tile_sample_stride_width=224)
    raw = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode().transpose(1, 2)
    torch.testing.assert_close(tiled, space.scale(raw), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(tiled, whole, atol=1e-5), "nothing was tiled"
    torch.testing.assert_close(decoded, pipeline_frames(vae, latents), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_vaes_own_tiling_is_not_used_and_is_put_back_also_after_an_error(monkeypatch):
    vae = make_vae()
    space = LatentSpace.from_vae(vae)
    frames, latents = clip(17, 64, 96), latents_of(3)
    expected = space.encode(frames, vae, tile=None), space.decode(latents, vae, tile=None)
    vae.enable_tiling(32, 64, tile_sample_stride_height=32, tile_sample_stride_width=32)
    vae.use_framewise_encoding = vae.use_framewise_decoding = True
    before = {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}

    def settings_now():
        return {k: v for k, v in vars(vae).items() if k.startswith(("use_", "tile_"))}

    assert torch.equal(space.encode(frames, vae, tile=None), expected[0])
    assert torch.equal(space.decode(latents, vae, tile=None), expected[1])
    assert settings_now() == before
    space.decode(latents, vae, tile=(256, 512))
    assert settings_now() == before

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vae, "encode", broken)
    monkeypatch.setattr(vae, "decode", broken)
    for call, argument in ((space.encode, frames), (space.decode, latents)):
        with pytest.raises(RuntimeError, match="out of memory"):
            call(argument, vae, tile=(256, 256))
        assert settings_now() == before


@torch.no_grad()
def test_mode_is_deterministic_and_a_generator_samples():
    vae, frames = make_vae(), clip(9)
    space = LatentSpace.from_vae(vae)
    mode = space.encode(frames, vae, tile=None)
    assert torch.equal(mode, space.encode(frames, vae, tile=None))
    draws = [
        space.encode(frames, vae, tile=None, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    assert not torch.allclose(draws[0], mode)


@every_kind
@pytest.mark.parametrize("tile", [None, (256, 256)])
def test_gradients_reach_every_frame_and_latent(kind, tile):
    vae = make_vae(kind)
    space = LatentSpace.from_vae(vae)
    frames = clip(9, 32, 288).requires_grad_()
    (gradient,) = torch.autograd.grad(space.encode(frames, vae, tile=tile).square().sum(), frames)
    assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    point = latents_of(2, 1, 9).requires_grad_()
    (gradient,) = torch.autograd.grad(space.decode(point, vae, tile=tile).sum(), point)
    assert (gradient.abs().sum(dim=(0, 2, 3)) > 0).all()


@every_kind
@torch.no_grad()
def test_runs_in_the_vaes_type_and_returns_float32(kind):
    vae = make_vae(kind).to(torch.bfloat16)
    space = LatentSpace.from_vae(vae)
    latents = space.encode(clip(9), vae, tile=None)
    frames = space.decode(latents, vae, tile=None)
    assert latents.dtype == frames.dtype == torch.float32


@pytest.mark.parametrize(
    ("frames", "tile", "message"),
    [
        (clip(8), None, r"8f \+ 1 frames .* got 8"),
        (clip(5), None, r"8f \+ 1 frames .* got 5"),
        (clip(1, 40, 64), None, "multiples of 32, got 40x64"),
        (clip(1) * 255, None, r"in \[0, 1\].* divide uint8 frames by 255"),
        (clip(1), (240, 360), r"multiples of 256 pixels.*got \(240, 360\)"),
        (clip(1), (0, 256), r"multiples of 256 pixels"),
    ],
)
def test_encode_refuses(frames, tile, message):
    vae = make_vae()
    with pytest.raises(ValueError, match=message):
        LatentSpace.from_vae(vae).encode(frames, vae, tile=tile)


def test_decoders_that_draw_noise_are_refused_but_encode():
    vae = make_vae(decoder_inject_noise=(True, True, False, False, False))
    space = LatentSpace.from_vae(vae)
    assert space.encode(clip(1), vae, tile=None).isfinite().all()
    with pytest.raises(LatentSpaceError, match="decoder_inject_noise"):
        space.decode(latents_of(1), vae, tile=None)


def test_a_vae_of_another_space_is_refused():
    space = LatentSpace.from_vae(make_vae())
    for other in (make_vae(seed=1), make_vae(latent_channels=4)):
        with pytest.raises(LatentSpaceError, match="expected a VAE with"):
            space.encode(clip(1), other, tile=None)
    with torch.device("meta"):
        cogvideox = AutoencoderKLCogVideoX()
    with pytest.raises(LatentSpaceError, match=r"expected a VAE with.*'channels': 16"):
        space.decode(latents_of(1), cogvideox, tile=None)
