"""What holds for HunyuanVideo beside the laws of all families."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward.backbones import TextCondition, backbone_for, load_transformer
from gtsvj_reward.backbones.hunyuan_video import HunyuanVideoBackbone
from gtsvj_reward.backbones.lora import attach_lora
from tests.backbones.family_hunyuan_video import hidden, null_text, text, tiny
from tests.tiny import clips


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_blocks_are_numbered_through_both_kinds(depth, tmp_path):
    model = tiny()
    expected = hidden(model, clips(2, 3), depth, 7.0, text(2))
    tokens = backbone_for(model, depth)(clips(2, 3), timestep=7.0, text=text(2))
    assert torch.equal(tokens.flatten(1, 2), expected)
    model.save_pretrained(tmp_path)
    part = load_transformer(tmp_path, depth=depth)
    assert len(part.transformer_blocks) == min(depth, 2)
    assert len(part.single_transformer_blocks) == max(depth - 2, 0)
    assert backbone_for(part).fingerprint() == backbone_for(model, depth).fingerprint()
    with pytest.raises(ValueError, match=r"1\.\.5.*got 6"):
        load_transformer(tmp_path, depth=6)


def test_depth_beyond_both_kinds_of_blocks_is_refused():
    with pytest.raises(ValueError, match=r"1\.\.5.*got 6"):
        backbone_for(tiny(), 6)


@given(double=st.integers(0, 20), single=st.integers(0, 40), data=st.data())
@settings(max_examples=30)
def test_truncated_configs_have_the_depth_that_was_asked_for(double, single, data):
    config = {"num_layers": double, "num_single_layers": single, "patch_size": 2}
    count = HunyuanVideoBackbone.block_count(config)
    assert count == double + single
    depth = data.draw(st.integers(0, count))
    part = HunyuanVideoBackbone.truncated(config, depth)
    assert HunyuanVideoBackbone.block_count(part) == depth
    assert part["num_layers"] <= double
    assert part["num_single_layers"] <= single
    assert part["num_single_layers"] == 0 or part["num_layers"] == double
    assert part["patch_size"] == 2


def test_lora_leaves_the_token_refiner_and_the_text_stream_alone():
    backbone = backbone_for(tiny())
    attach_lora(backbone, rank=2, alpha=2, placement="all")
    model = backbone.model
    adapted = {n.split(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert len(adapted) == 5 * 4
    assert {name.split(".")[0] for name in adapted} == {
        "transformer_blocks",
        "single_transformer_blocks",
    }
    assert not any("add_" in name for name in adapted)
    refiner = [n for n, _ in model.named_modules() if n.endswith(".to_q.base_layer")]
    assert len(refiner) == 5
    assert any(n.startswith("context_embedder.") for n, _ in model.named_modules())


def test_an_adapter_on_single_stream_blocks_changes_the_tokens():
    backbone = backbone_for(tiny())
    before = backbone(clips(1, 3), timestep=0.0)
    attach_lora(backbone, rank=2, alpha=2, placement="all")
    for name, parameter in backbone.model.named_parameters():
        if ".lora_B." in name and name.startswith("single_transformer_blocks.2.proj_out"):
            parameter.data.normal_(0, 0.3)
    assert (backbone(clips(1, 3), timestep=0.0) - before).abs().max() > 1e-3


def test_padding_of_prompts_does_not_matter():
    backbone = backbone_for(tiny())
    given_text, other = text(2), text(2)
    assert not given_text.mask.all(), "nothing is padded"
    other.embeds[~other.mask] += 10
    tokens = backbone(clips(2, 3), timestep=0.0, text=given_text)
    torch.testing.assert_close(backbone(clips(2, 3), timestep=0.0, text=other), tokens)
    longer = TextCondition(
        torch.cat([other.embeds, torch.ones(2, 3, 8)], dim=1),
        torch.cat([other.mask, torch.zeros(2, 3, dtype=torch.bool)], dim=1),
        other.pooled,
    )
    torch.testing.assert_close(backbone(clips(2, 3), timestep=0.0, text=longer), tokens)


def test_the_null_text_is_any_padding_of_one_token_of_zeros():
    model = tiny()
    tokens = backbone_for(model)(clips(2, 3), timestep=0.0).flatten(1, 2)
    mask = torch.arange(256).expand(2, -1) < 1
    long = TextCondition(torch.zeros(2, 256, 8), mask, torch.zeros(2, 6))
    torch.testing.assert_close(hidden(model, clips(2, 3), 5, 0.0, long), tokens)
    empty = replace(null_text(2), mask=torch.zeros(2, 2, dtype=torch.bool))
    assert hidden(model, clips(2, 3), 5, 0.0, empty).isnan().all(), "is one token still needed?"


def test_the_guidance_scale_is_that_of_the_pipeline_and_part_of_the_settings():
    latents = clips(1, 3)
    guided, plain = backbone_for(tiny()), backbone_for(tiny(guidance_embeds=False))
    assert json.loads(guided.settings)["guidance_scale"] == 6.0
    assert json.loads(plain.settings)["guidance_scale"] is None
    before = guided(latents, timestep=0.0)
    guided.model.time_text_embed.guidance_embedder.linear_1.weight.data.mul_(2)
    assert (guided(latents, timestep=0.0) - before).abs().max() > 1e-3


def test_models_in_bfloat16_are_told_what_the_pipeline_tells_them():
    model = tiny().to(torch.bfloat16)
    latents = clips(2, 3, dtype=torch.bfloat16)
    condition = null_text(2)
    condition = TextCondition(
        condition.embeds.bfloat16(), condition.mask, condition.pooled.bfloat16()
    )
    tokens = backbone_for(model)(latents, timestep=7.0)
    assert torch.equal(tokens.flatten(1, 2), hidden(model, latents, 5, 7.0, condition))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 9}, "takes 9 channels, gives 4"),
        ({"image_condition_type": "latent_concat"}, "image_condition_type='latent_concat'"),
        ({"patch_size_t": 2}, "expected patch_size_t=1.*got 2"),
    ],
)
def test_other_kinds_of_models_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": None}, "needs `mask` and `pooled`"),
        ({"pooled": None}, "needs `mask` and `pooled`"),
        ({"embeds": torch.zeros(2, 5, 9)}, r"\(2, 5, 8\).*got \(\(2, 5, 9\)"),
        (vars(text(1)), r"\(2, 5, 8\).*got \(\(1, 5, 8\)"),
        ({"embeds": torch.zeros(2, 0, 8), "mask": torch.zeros(2, 0).bool()}, r"\(2, 1, 8\)"),
        ({"pooled": torch.zeros(2, 7)}, r"\(2, 6\)\).*\(2, 7\)\)"),
        ({"mask": torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()}, r"1 of 2 .* \[1\]"),
        ({"mask": torch.tensor([[0, 1, 1, 1, 1], [1, 0, 1, 0, 0]]).bool()}, r"2 of 2 .* \[0, 1\]"),
    ],
)
def test_text_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        backbone_for(tiny())(clips(2, 3), timestep=0.0, text=replace(text(2), **changes))
