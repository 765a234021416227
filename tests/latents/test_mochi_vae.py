"""Mochi's VAE: the published one, and what its pipeline decodes."""

import pytest
import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.vaes import vae_family
from tests.latents.tiny import BY_NAME, clip, latents_of

mochi_vae = BY_NAME["mochi"].make


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


def test_the_published_vae_is_known_by_its_config():
    with torch.device("meta"):
        published = AutoencoderKLMochi()
    space = LatentSpace.from_vae(published)
    assert space.id == "mochi-1"
    assert (space.channels, space.layout, space.scaling_factor) == (12, "BCTHW", 1.0)
    assert (space.spatial_compression, space.temporal_compression) == (8, 6)
    assert space.mean == published.config.latents_mean
    assert space.std == published.config.latents_std


@pytest.mark.parametrize(
    "changes",
    [
        {"latents_std": (2.0,) * 12},
        {"latents_mean": None, "latents_std": None},
        {"scaling_factor": 0.5},
    ],
)
def test_other_vaes_of_the_class_are_not_taken_for_the_published_one(changes):
    with torch.device("meta"):
        other = AutoencoderKLMochi(**changes)
    with pytest.raises(ValueError, match="meta device"):  # its name needs its weights
        LatentSpace.from_vae(other)


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


@pytest.mark.parametrize("tile", [(240, 360), (16, 24), (40, 48)])
@torch.no_grad()
def test_tiles_of_any_whole_latents_cover_the_frame(tile):
    vae = mochi_vae()
    space, stride = LatentSpace.from_vae(vae), vae_family(vae).tile_stride
    assert all(0 < stride(edge) < edge and stride(edge) % 8 == 0 for edge in tile)
    latents = space.encode(clip(1, 72, 96), vae, tile=tile)
    assert latents.shape == (1, 1, 12, 9, 12)
    assert space.decode(latents, vae, tile=tile).shape == (1, 1, 3, 72, 96)


def test_other_statistics_are_refused():
    space = LatentSpace.from_vae(mochi_vae())
    with pytest.raises(LatentSpaceError, match="load the VAE of this space"):
        space.decode(latents_of(space, 1), mochi_vae(latents_std=(2.0,) * 12))
    with pytest.raises(LatentSpaceError, match="one of which Mochi's pipeline would ignore"):
        LatentSpace.from_vae(mochi_vae(latents_mean=None))
