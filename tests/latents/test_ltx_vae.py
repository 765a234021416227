"""The LTX VAE: its statistics, its pipelines, and the tokens that they return."""

import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from hypothesis import strategies as st

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.ltx_vae import unpack_tokens
from tests.latents.tiny import BY_NAME, clip, latents_of, params

every_kind = pytest.mark.parametrize("kind", params("ltx-0"))
TINY = BY_NAME["ltx-0.9.0"]


@every_kind
def test_space_is_read_from_the_vae(kind):
    vae = kind.make()
    space = LatentSpace.from_vae(vae)
    assert (space.channels, space.spatial_compression, space.temporal_compression) == (8, 32, 8)
    assert space.layout == "BCTHW"
    assert space.scaling_factor == 1.0
    assert torch.equal(torch.tensor(space.mean), vae.latents_mean)
    assert torch.equal(torch.tensor(space.std), vae.latents_std)


def test_the_class_defaults_compress_32_by_32_by_8():
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo()
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio) == (32, 8)
    assert vae.config.latent_channels == 128
    with pytest.raises(LatentSpaceError, match=r"meta device.*load the weights"):
        LatentSpace.from_vae(vae, id="ltx")


@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_scaling_equals_the_pipelines_normalisation(factor):
    vae = TINY.make(scaling_factor=factor)
    space = LatentSpace.from_vae(vae)
    raw = 3 * latents_of(space, 3)
    statistics = (vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    scaled = LTXPipeline._normalize_latents(raw.transpose(1, 2), *statistics).transpose(1, 2)
    torch.testing.assert_close(space.scale(raw), scaled, rtol=1e-6, atol=1e-6)
    back = LTXPipeline._denormalize_latents(scaled.transpose(1, 2), *statistics).transpose(1, 2)
    torch.testing.assert_close(space.unscale(scaled), back, rtol=1e-6, atol=1e-6)
    if factor == 1.0:
        assert torch.equal(space.scale(raw), scaled)
        assert torch.equal(space.unscale(scaled), back)


def make_pipeline(cls, kind):
    torch.manual_seed(1)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, caption_channels=8, num_layers=1,
    )  # fmt: skip
    pipe = cls(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kind.make(),
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


@pytest.mark.parametrize("kind", params("ltx-0.9.5"))
@torch.no_grad()
def test_latents_of_the_condition_pipeline_are_unpacked_already(kind):
    from diffusers import LTXConditionPipeline

    pipe = make_pipeline(LTXConditionPipeline, kind)
    space = LatentSpace.from_pipeline(pipe)
    latents = space.to_btchw(generate(pipe, "latent"))
    assert latents.shape == (2, 3, 8, 2, 3)
    frames = space.decode(latents, pipe.vae, tile=None)
    torch.testing.assert_close(frames, generate(pipe, "pt"), atol=1e-5, rtol=0)


sizes = st.integers(1, 5)


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


def test_decoders_that_draw_noise_are_refused_but_encode():
    vae = TINY.make(decoder_inject_noise=(True, True, False, False, False))
    space = LatentSpace.from_vae(vae)
    assert space.encode(clip(1, 32, 64), vae, tile=None).isfinite().all()
    with pytest.raises(LatentSpaceError, match="decoder_inject_noise"):
        space.decode(latents_of(space, 1), vae, tile=None)


def test_other_statistics_are_refused():
    space = LatentSpace.from_vae(TINY.make())
    with pytest.raises(LatentSpaceError, match="expected a VAE with"):
        space.encode(clip(1), TINY.make(seed=1))
