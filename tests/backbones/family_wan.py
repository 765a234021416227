"""Wan of 16 channels, and of 48 as in 2.2-5B."""

import torch
from diffusers import WanTransformer3DModel

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from tests.backbones.family import Family

CHANNELS = {"2.1": 4, "2.2-5b": 6}
"""Only the width, here heads and channels, tells the models apart."""
KINDS = {
    "2.1": {"num_attention_heads": 2, "attention_head_dim": 16},
    "2.2-5b": {"num_attention_heads": 3, "attention_head_dim": 12},
}


def tiny_wan(kind="2.1", *, layers=4, seed=0, **changes):
    """A Wan transformer, 32 or 36 wide, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = {
        "in_channels": CHANNELS[kind],
        "out_channels": CHANNELS[kind],
        "text_dim": 8,
        "freq_dim": 16,
        "ffn_dim": 48,
        "num_layers": layers,
        "rope_max_seq_len": 32,
        **KINDS[kind],
        **changes,
    }
    model = WanTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2)
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def text(batch):
    generator = torch.Generator().manual_seed(3)
    return TextCondition(torch.randn(batch, 6, 8, generator=generator))


def null_text(batch):
    return TextCondition(torch.zeros(batch, 512, 8))


def hidden(model, latents, depth, timestep, condition, *, per_token=False):
    """What a forward hook sees; the model is called as `WanPipeline` calls it."""
    seen = []
    hook = model.blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    timesteps = torch.tensor(timestep).expand(len(latents))
    if per_token:  # `expand_timesteps`, set for 2.2-5B
        mask = torch.ones(latents.transpose(1, 2).shape)
        flat = (mask[0][0][:, ::2, ::2] * torch.tensor(timestep)).flatten()
        timesteps = flat.unsqueeze(0).expand(len(latents), -1)
    try:
        model(
            hidden_states=latents.transpose(1, 2),
            timestep=timesteps,
            encoder_hidden_states=condition.embeds,
        )
    finally:
        hook.remove()
    return seen[0]


def family(kind):
    channels = CHANNELS[kind]
    return Family(
        name=f"wan-{kind}",
        transformer=lambda seed: tiny_wan(kind, seed=seed),
        space=LatentSpace(
            id=f"tiny-wan-{kind}",
            channels=channels,
            spatial_compression=8 if kind == "2.1" else 16,
            layout="BCTHW",
            mean=tuple(0.1 * index for index in range(channels)),
            std=tuple(1 + 0.1 * index for index in range(channels)),
        ),
        sizes=((3, 8, 12), (6, 4, 10)),
        depths=(1, 3, 4),
        tokens=lambda size: (size[0], size[1] * size[2] // 4),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        block=lambda index: f"blocks.{index}",
    )


FAMILIES = [family(kind) for kind in KINDS]
