"""What holds for LTX beyond the laws of all families: positions and text."""

import pytest
import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel, __version__ as diffusers_version
from packaging.version import Version

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.backbones.ltx import LTXBackbone, coordinates


def transformer(seed=0, **changes):
    """32 wide, so that two numbers of a token have no position, as in the published model."""
    torch.manual_seed(seed)
    config = {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": 8,
        "num_layers": 4,
        **changes,
    }
    model = LTXVideoTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)  # away from the near-identity of a fresh initialisation
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def text(batch):
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(batch, 6, dtype=torch.bool)
    mask[1:, 4:] = False
    return TextCondition(torch.randn(batch, 6, 8, generator=generator), mask)


def null_text(batch):
    return TextCondition(torch.zeros(batch, 1, 8), torch.ones(batch, 1, dtype=torch.bool))


def hidden(model, latents, depth, timestep, condition, fps=25, **positions):
    """Called as `LTXPipeline` does, or with other positions."""
    seen = []
    hook = model.transformer_blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    _, steps, _, height, width = latents.shape
    try:
        model(
            hidden_states=LTXPipeline._pack_latents(latents.transpose(1, 2)),
            encoder_hidden_states=condition.embeds.to(latents),
            timestep=torch.tensor(timestep).expand(len(latents)),
            encoder_attention_mask=condition.mask,
            num_frames=steps,
            height=height,
            width=width,
            **(positions or {"rope_interpolation_scale": (8 / fps, 32, 32)}),
        )
    finally:
        hook.remove()
    return seen[0]


needs_condition_pipeline = pytest.mark.skipif(
    Version(diffusers_version) < Version("0.33"), reason="diffusers 0.33 brought causal positions"
)


def latents_of(batch=2, time=4, height=3, width=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, time, 8, height, width, generator=generator)


def condition_pipeline_coordinates(latents, fps):
    """Positions as `LTXConditionPipeline.__call__` prepares them for text alone."""
    from diffusers import LTXConditionPipeline

    batch, time, _, height, width = latents.shape
    ids = LTXConditionPipeline._prepare_video_ids(batch, time, height, width)
    coordinates = LTXConditionPipeline._scale_video_ids(ids, 32, 8, frame_index=0).float()
    coordinates[:, 0] = coordinates[:, 0] * (1.0 / fps)
    return coordinates


@pytest.mark.parametrize("fps", [8, 24, 25, 29.97])
def test_frame_rate_places_latents_as_the_pipeline_does(fps):
    model, latents, condition = transformer(), latents_of(), text(2)
    tokens = LTXBackbone(model, 3, fps=fps)(latents, timestep=7.0, text=condition)
    expected = hidden(model, latents, 3, 7.0, condition, fps=fps)
    assert torch.equal(tokens.flatten(1, 2), expected)
    other = hidden(model, latents, 3, 7.0, condition, fps=25 if fps != 25 else 8)
    assert (expected - other).abs().max() > 1e-2, "the frame rate changes nothing"


@needs_condition_pipeline
@pytest.mark.parametrize("fps", [8, 24, 25, 29.97])
def test_causal_time_places_latents_as_the_condition_pipeline_does(fps):
    model, latents, condition = transformer(), latents_of(), text(2)
    backbone = LTXBackbone(model, fps=fps, causal_time=True)
    tokens = backbone(latents, timestep=7.0, text=condition).flatten(1, 2)
    coordinates = condition_pipeline_coordinates(latents, fps)
    expected = hidden(model, latents, 4, 7.0, condition, video_coords=coordinates)
    assert torch.equal(tokens, expected)
    counted = LTXBackbone(model, fps=fps)(latents, timestep=7.0, text=condition).flatten(1, 2)
    assert (tokens - counted).abs().max() > 1e-2, "both are alike: the test proves nothing"


@pytest.mark.parametrize(
    ("causal", "seconds"),
    [(False, 8 / 25), pytest.param(True, 1 / 25, marks=needs_condition_pipeline)],
)
def test_angles_by_hand(causal, seconds):
    # Width 6 has one frequency per axis, the lowest: pi/2 (2x - 1), x = seconds / 20 or
    # pixels / 2048. The latent at (1, 1, 0) and 25 fps stands at 8/25 s, row 32, column 0; with
    # causal time at 1/25 s. Angles come in the order time, row, column, each twice.
    rope = transformer(num_attention_heads=1, attention_head_dim=6, cross_attention_dim=6).rope
    places = coordinates((2, 2, 3), 25.0, causal, torch.device("cpu"))
    cos, sin = rope(torch.empty(1, 0), video_coords=places)
    x = torch.tensor([seconds / 20, 32 / 2048, 0.0])
    angles = (torch.pi / 2 * (2 * x - 1)).repeat_interleave(2)
    token = 1 * 6 + 1 * 3 + 0
    torch.testing.assert_close(cos[0, token], angles.cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(sin[0, token], angles.sin(), rtol=0, atol=1e-6)


def test_one_table_of_positions_serves_all_clips_of_a_batch():
    inputs = LTXBackbone(transformer()).inputs(latents_of(3), timestep=0.0, text=None)
    assert inputs["video_coords"].shape == (1, 3, 4 * 3 * 5)


def test_positions_are_part_of_the_fingerprint():
    model = transformer()
    kinds = [{}, {"fps": 24}, {"causal_time": True}]
    assert len({LTXBackbone(model, **kind).fingerprint() for kind in kinds}) == 3
    assert LTXBackbone(model, fps=25).fingerprint() == LTXBackbone(model).fingerprint()


def test_one_word_of_zeros_stands_for_any_number_of_them():
    model, latents = transformer(), latents_of()
    tokens = LTXBackbone(model)(latents, timestep=0.0).flatten(1, 2)
    words = TextCondition(torch.zeros(2, 128, 8), torch.ones(2, 128, dtype=torch.bool))
    many = hidden(model, latents, 4, 0.0, words)
    torch.testing.assert_close(tokens, many, rtol=0, atol=5e-4)
    assert torch.equal(tokens, hidden(model, latents, 4, 0.0, null_text(2)))


def test_masked_words_do_not_count_and_no_mask_means_all_do():
    backbone, latents, condition = LTXBackbone(transformer()), latents_of(), text(2)
    tokens = backbone(latents, timestep=0.0, text=condition)
    noise = condition.embeds.clone()
    noise[1, 4:] += 1  # masked in the second sample
    changed = backbone(latents, timestep=0.0, text=TextCondition(noise, condition.mask))
    assert torch.equal(changed, tokens)
    unmasked = backbone(latents, timestep=0.0, text=TextCondition(condition.embeds))
    full = TextCondition(condition.embeds, torch.ones(2, 6, dtype=torch.bool))
    assert torch.equal(unmasked, backbone(latents, timestep=0.0, text=full))
    assert (unmasked[1] - tokens[1]).abs().max() > 1e-2


ONES = torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (TextCondition(torch.zeros(2, 6, 7)), r"embeddings \(2, 6, 8\).*got \(2, 6, 7\)"),
        (TextCondition(torch.zeros(1, 6, 8)), r"embeddings \(2, 6, 8\).*got \(1, 6, 8\)"),
        (TextCondition(torch.zeros(2, 0, 8)), "at least one word"),
        (TextCondition(torch.zeros(2, 6, 8), ONES & torch.tensor([[True], [False]])),
         "1 of 2 text masks have no valid word, the first is number 1"),
        (TextCondition(torch.zeros(2, 6, 8), ONES, torch.zeros(2, 4)), "no pooled text"),
    ],
)  # fmt: skip
def test_text_that_does_not_fit_is_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        LTXBackbone(transformer())(latents_of(), timestep=0.0, text=condition)


@pytest.mark.parametrize("fps", [0, -25.0, float("nan"), float("inf")])
def test_frame_rates_that_are_none_are_refused(fps):
    with pytest.raises(ValueError, match="positive frames per second, got"):
        LTXBackbone(transformer(), fps=fps)


def test_models_that_join_latents_are_refused():
    with pytest.raises(ValueError, match="`patch_size` 2 and `patch_size_t` 1"):
        LTXBackbone(transformer(patch_size=2))
