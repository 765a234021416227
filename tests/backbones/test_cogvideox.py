import pytest
import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import (
    CogVideoXPipeline,
    get_resize_crop_region_for_grid,
)
from hypothesis import given, strategies as st

from gtsvj_reward.backbones import TextCondition, backbone_for
from gtsvj_reward.backbones.cogvideox import centred_crop
from tests.tiny import KINDS, clips, tiny_transformer


class PipelineLike:
    """What `CogVideoXPipeline._prepare_rotary_positional_embeddings` reads of its pipeline."""

    vae_scale_factor_spatial = 8

    def __init__(self, transformer):
        self.transformer = transformer


def pipeline_rotary(transformer, latents):
    """Rotary tables exactly as the diffusers pipeline prepares them."""
    if not transformer.config.use_rotary_positional_embeddings:
        return None
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(
        PipelineLike(transformer),
        8 * latents.shape[3],
        8 * latents.shape[4],
        latents.shape[1],
        latents.device,
    )


def diffusers_hidden(transformer, latents, depth, *, timestep, embeds):
    """What a forward hook sees leave block `depth - 1` of the unmodified model."""
    seen = []
    hook = transformer.transformer_blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    try:
        transformer(
            hidden_states=latents,
            encoder_hidden_states=embeds,
            timestep=torch.full((len(latents),), timestep),
            image_rotary_emb=pipeline_rotary(transformer, latents),
        )
    finally:
        hook.remove()
    return seen[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("size", [(4, 8, 12), (6, 4, 10), (2, 8, 6)])
def test_hidden_states_equal_those_of_the_unmodified_model(kind, depth, size):
    transformer = tiny_transformer(kind)
    latents = clips(2, *size)
    embeds = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3))
    tokens = backbone_for(transformer, depth)(latents, timestep=7.0, text=TextCondition(embeds))
    expected = diffusers_hidden(transformer, latents, depth, timestep=7, embeds=embeds)
    steps = size[0] // 2 if kind == "1.5" else size[0]
    assert tokens.shape == (2, steps, size[1] * size[2] // 4, 32)
    assert torch.equal(tokens.flatten(1, 2), expected)
    assert expected.std() > 0.1, "hidden states are all alike: the test proves nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_null_text_is_zeros_of_the_models_text_length(kind):
    transformer = tiny_transformer(kind)
    latents = clips(1, 4)
    tokens = backbone_for(transformer)(latents, timestep=0.0)
    expected = diffusers_hidden(transformer, latents, 4, timestep=0, embeds=torch.zeros(1, 6, 8))
    assert torch.equal(tokens.flatten(1, 2), expected)


def test_time_patches_are_filled_in_front_with_the_first_latent():
    transformer = tiny_transformer("1.5")
    latents = clips(2, 5)
    padded = torch.cat([latents[:, :1], latents], dim=1)
    tokens = backbone_for(transformer, 2)(latents, timestep=0.0)
    expected = diffusers_hidden(transformer, padded, 2, timestep=0, embeds=torch.zeros(2, 6, 8))
    assert tokens.shape[1] == 3
    assert torch.equal(tokens.flatten(1, 2), expected)


@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_rotary_positions_reach_the_attention(kind):
    """A rotary model runs without a word when it is given no positions at all."""
    transformer = tiny_transformer(kind)
    latents = clips(1, 4)
    tokens = backbone_for(transformer)(latents, timestep=0.0).flatten(1, 2)
    seen = []
    hook = transformer.transformer_blocks[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    transformer(latents, torch.zeros(1, 6, 8), torch.zeros(1), image_rotary_emb=None)
    hook.remove()
    assert (tokens - seen[0]).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(2, 20, 30), (3, 40, 6)])
def test_clips_larger_than_the_models_own_size_keep_counted_positions(size):
    """1.5 counts patches, so a larger grid only continues the table of a model with more room."""
    latents = clips(1, 2 * size[0], *size[1:])
    small, large = (
        tiny_transformer("1.5", sample_height=h, sample_width=w) for h, w in [(8, 12), (64, 64)]
    )
    assert torch.equal(
        backbone_for(small)(latents, timestep=0.0), backbone_for(large)(latents, timestep=0.0)
    )


@given(
    grid=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    base=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_centred_crop_is_that_of_diffusers(grid, base):
    assert centred_crop(grid, base) == get_resize_crop_region_for_grid(grid, base[1], base[0])


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_neither_tokens_nor_gradients(kind):
    backbone = backbone_for(tiny_transformer(kind))
    results = []
    for checkpointing in (False, True):
        backbone.gradient_checkpointing = checkpointing
        latents = clips(1, 4).requires_grad_()
        tokens = backbone(latents, timestep=0.0)
        tokens.square().sum().backward()
        results.append((tokens.detach(), latents.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=0)


def test_the_given_transformer_is_left_as_it_is():
    transformer = tiny_transformer()
    names = [name for name, _ in transformer.named_modules()]
    backbone = backbone_for(transformer, 2)
    backbone.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in transformer.parameters())
    assert [name for name, _ in transformer.named_modules()] == names
    ours = dict(backbone.base_tensors())
    theirs = dict(transformer.named_parameters())
    assert len(backbone.model.transformer_blocks) == 2
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.zeros(1, 3, 5, 8, 8), r"takes latents \(batch, time, 4, height, width\).*3, 5, 8"),
        (torch.zeros(1, 3, 4, 7, 8), r"multiples of the patch size 2, got 7x8"),
    ],
)
def test_latents_that_cannot_be_patched_are_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny_transformer())(latents, timestep=0.0)


def test_sine_cosine_positions_need_the_models_own_text_length():
    latents, short = clips(1, 3), TextCondition(torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match=r"\(1, 6, 8\), got \(1, 5, 8\); pad prompts"):
        backbone_for(tiny_transformer("2b"))(latents, timestep=0.0, text=short)
    assert backbone_for(tiny_transformer("5b"))(latents, timestep=0.0, text=short).isfinite().all()


def test_text_masks_are_refused():
    text = TextCondition(torch.zeros(1, 6, 8), mask=torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="give `embeds` alone"):
        backbone_for(tiny_transformer())(clips(1, 3), timestep=0.0, text=text)


def test_models_with_further_channels_are_refused():
    with pytest.raises(ValueError, match="12 channels and gives 4"):
        backbone_for(tiny_transformer(in_channels=12))


@pytest.mark.parametrize("depth", [0, 5])
def test_depth_outside_the_model_is_refused(depth):
    with pytest.raises(ValueError, match=rf"1\.\.4.*got {depth}"):
        backbone_for(tiny_transformer(), depth)


def test_unknown_families_are_refused_by_name():
    with pytest.raises(ValueError, match="no backbone for 'Linear'; known: CogVideoX"):
        backbone_for(torch.nn.Linear(2, 2))
