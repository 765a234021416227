"""Models whose number of blocks is the default of their class can be cut like any other."""

import torch
from diffusers import CogVideoXTransformer3DModel

from gtsvj_reward.backbones import backbone_for


def test_a_number_of_blocks_that_was_never_written_down_is_cut():
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4,
        time_embed_dim=16, text_embed_dim=8, sample_width=12, sample_height=8, sample_frames=9,
        max_text_seq_length=6,
    ).eval()  # fmt: skip
    assert len(model.transformer_blocks) == 30
    assert "num_layers" in model.config["_use_default_values"]
    backbone = backbone_for(model, 3)
    assert len(backbone.blocks()) == backbone.depth == 3
    latents = torch.randn(1, 3, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        cut = backbone(latents, timestep=0.0)
        whole = backbone_for(model)(latents, timestep=0.0, taps=[3])[3]
    assert torch.equal(cut, whole)
