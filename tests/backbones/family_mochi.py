"""Mochi 1."""

import torch
from diffusers import MochiTransformer3DModel

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from tests.backbones.family import Family


def tiny_mochi(*, seed=0, layers=4, **changes):
    """A Mochi transformer, 32 wide, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": layers,
        "pooled_projection_dim": 24,
        "in_channels": 4,
        "text_embed_dim": 16,
        "time_embed_dim": 16,
        "max_sequence_length": 6,
        **changes,
    }
    model = MochiTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)  # away from the near-identity of a fresh initialisation
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    generator = torch.Generator().manual_seed(seed)
    # Zeros in a fresh model, which then knows no positions at all.
    model.pos_frequencies.data.normal_(0, 0.05, generator=generator)
    return model


def text(batch):
    """Prompts of one, two, ... tokens."""
    generator = torch.Generator().manual_seed(3)
    embeds = torch.randn(batch, 6, 16, generator=generator)
    return TextCondition(embeds, torch.arange(6) < torch.arange(1, batch + 1)[:, None])


def null_text(batch):
    return TextCondition(torch.zeros(batch, 6, 16), torch.zeros(batch, 6, dtype=torch.bool))


def hidden(model, latents, depth, timestep, condition):
    """What a hook sees in a call like the pipeline's, whose timesteps count up to clean."""
    seen = []
    hook = model.transformer_blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    try:
        model(
            hidden_states=latents.transpose(1, 2),
            encoder_hidden_states=condition.embeds,
            timestep=torch.full((len(latents),), 1000 - timestep).to(latents.dtype),
            encoder_attention_mask=condition.mask,
        )
    finally:
        hook.remove()
    return seen[0]


FAMILIES = [
    Family(
        name="mochi",
        transformer=lambda seed: tiny_mochi(seed=seed),
        space=LatentSpace(id="tiny", channels=4, temporal_compression=6, layout="BCTHW"),
        sizes=((4, 8, 12), (3, 4, 10), (1, 6, 6)),
        depths=(1, 3, 4),
        tokens=lambda size: (size[0], size[1] * size[2] // 4),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        block=lambda index: f"transformer_blocks.{index}",
    )
]
