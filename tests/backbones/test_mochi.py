"""What is Mochi's own: frequencies on the model itself, a last block unlike the others, masks."""

import pytest
import torch
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiPipeline
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

from gtsvj_reward.backbones import SharingError, TextCondition, backbone_for, shared_backbone
from gtsvj_reward.backbones.mochi import MochiBackbone
from tests.backbones.families import FAMILIES
from tests.backbones.family_mochi import hidden, null_text, text, tiny_mochi


def clips(batch=2):
    return torch.randn(batch, 4, 4, 8, 12, generator=torch.Generator().manual_seed(0))


def test_the_family_is_under_test():
    assert "mochi" in [family.name for family in FAMILIES]


def test_the_pipeline_counts_as_we_do():
    """It tells the model 1000 - 1000 sigma, where sigma, the share of noise, falls from 1."""
    model = tiny_mochi(in_channels=12)
    with torch.device("meta"):
        vae = AutoencoderKLMochi()
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipe = MochiPipeline(scheduler, vae, None, None, model)
    pipe.set_progress_bar_config(disable=True)
    told = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["timestep"].item()), with_kwargs=True
    )
    pipe(
        prompt_embeds=torch.ones(1, 6, 16),
        prompt_attention_mask=torch.ones(1, 6, dtype=torch.bool),
        num_inference_steps=4,
        guidance_scale=1.0,
        height=32,
        width=32,
        num_frames=7,
        output_type="latent",
    )
    noise = linear_quadratic_schedule(4, 0.025)
    assert noise[0] == 1
    assert noise == sorted(noise, reverse=True)
    assert told == pytest.approx([1000 - 1000 * sigma for sigma in noise], abs=1e-3)


def test_clean_latents_are_what_the_model_calls_1000():
    model = tiny_mochi()
    seen = []
    model.transformer_blocks[-1].register_forward_hook(lambda m, i, output: seen.append(output[0]))
    condition = text(2)
    model(clips().transpose(1, 2), condition.embeds, torch.tensor([1000.0] * 2), condition.mask)
    tokens = backbone_for(model)(clips(), timestep=0.0, text=condition)
    assert torch.equal(tokens.flatten(1, 2), seen[0])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_last_block_of_a_part_is_not_the_last_of_a_model(depth):
    """A Mochi of `depth` layers drops the text in its last block; a part of a longer one does not.

    Only `norm1_context` tells in the video stream, as the text's way out leads nowhere.
    """
    model = tiny_mochi()
    part = MochiBackbone.skeleton(model.config, depth)
    assert len(part.transformer_blocks) == depth
    kept = {name: value for name, value in model.state_dict().items() if name in part.state_dict()}
    part.load_state_dict(kept)
    assert not any(block.context_pre_only for block in part.transformer_blocks)
    tokens = backbone_for(part.eval())(clips(), timestep=7.0, text=text(2))
    assert torch.equal(tokens.flatten(1, 2), hidden(model, clips(), depth, 7.0, text(2)))
    with pytest.raises(RuntimeError, match="norm1_context"):
        tiny_mochi(layers=depth).load_state_dict(kept)


def test_a_whole_skeleton_is_the_whole_model():
    model = tiny_mochi()
    whole = MochiBackbone.skeleton(model.config, 4)
    assert whole.state_dict().keys() == model.state_dict().keys()


def test_frequencies_reach_the_attention_and_the_fingerprint():
    model = tiny_mochi()
    before = backbone_for(model)
    assert "pos_frequencies" in dict(before.base_tensors())
    tokens, fingerprint = before(clips(), timestep=0.0), before.fingerprint()
    model.pos_frequencies.data.mul_(1.5)
    after = backbone_for(model)
    assert (after(clips(), timestep=0.0) - tokens).abs().max() > 1e-2
    assert after.fingerprint() != fingerprint


def test_frequencies_are_frozen_apart_and_cast_apart():
    model = tiny_mochi()
    backbone = backbone_for(model)
    assert not backbone.model.pos_frequencies.requires_grad
    assert model.pos_frequencies.requires_grad
    assert backbone.model.pos_frequencies.data_ptr() == model.pos_frequencies.data_ptr()
    backbone.cast(torch.bfloat16)
    assert model.pos_frequencies.dtype == torch.float32
    assert backbone(clips(), timestep=0.0).dtype == torch.bfloat16


def test_shared_frequencies_that_were_replaced_are_noticed():
    model = tiny_mochi().requires_grad_(False)
    backbone = shared_backbone(model)
    assert backbone.model.pos_frequencies is model.pos_frequencies
    backbone.live.refresh()
    kept = model.pos_frequencies
    model.pos_frequencies = torch.nn.Parameter(kept.detach().clone(), requires_grad=False)
    with pytest.raises(SharingError, match=r"pos_frequencies .* was replaced"):
        backbone.live.refresh()
    model.pos_frequencies = kept
    kept.requires_grad_()
    with pytest.raises(SharingError, match=r"pos_frequencies .* requires grad"):
        backbone.live.refresh()


def test_no_prompt_is_no_valid_token_and_needs_no_embedding():
    backbone = backbone_for(tiny_mochi())
    nothing = null_text(2)
    other = TextCondition(torch.randn(2, 6, 16), nothing.mask)
    tokens = backbone(clips(), timestep=0.0)
    assert torch.equal(backbone(clips(), timestep=0.0, text=nothing), tokens)
    torch.testing.assert_close(backbone(clips(), timestep=0.0, text=other), tokens)
    assert (backbone(clips(), timestep=0.0, text=text(2)) - tokens).abs().max() > 1e-2


def test_padding_changes_nothing_and_no_mask_means_no_padding():
    backbone = backbone_for(tiny_mochi())
    embeds = text(2).embeds
    short = backbone(clips(), timestep=0.0, text=TextCondition(embeds[:, :3]))
    mask = (torch.arange(6) < 3).expand(2, -1)
    padded = backbone(clips(), timestep=0.0, text=TextCondition(embeds, mask))
    torch.testing.assert_close(padded, short, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (TextCondition(torch.zeros(1, 6, 16)), r"\(2, words, 16\), got \(1, 6, 16\)"),
        (TextCondition(torch.zeros(2, 6, 8)), r"\(2, words, 16\), got \(2, 6, 8\)"),
        (
            TextCondition(torch.zeros(2, 2, 16), torch.tensor([[True, False], [False, True]])),
            "sample 1 has valid tokens after padding",
        ),
        (TextCondition(torch.zeros(2, 6, 16), pooled=torch.zeros(2, 3)), "leave `pooled` out"),
    ],
)
def test_text_that_does_not_fit_is_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny_mochi())(clips(), timestep=0.0, text=condition)


def test_a_mask_of_another_length_is_refused():
    condition = TextCondition(torch.zeros(2, 6, 16))
    # Past the shape checks of the tests, which would refuse it first.
    object.__setattr__(condition, "mask", torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a mask \(2, 6\), got \(2, 5\)"):
        backbone_for(tiny_mochi())(clips(), timestep=0.0, text=condition)
