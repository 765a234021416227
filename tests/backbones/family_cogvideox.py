"""CogVideoX 2B, 5B and 1.5."""

import torch

from gtsvj_reward.backbones import TextCondition
from tests.backbones.family import Family
from tests.backbones.test_cogvideox import diffusers_hidden
from tests.tiny import KINDS, tiny_space, tiny_transformer


def text(batch):
    generator = torch.Generator().manual_seed(3)
    return TextCondition(torch.randn(batch, 6, 8, generator=generator))


def null_text(batch):
    return TextCondition(torch.zeros(batch, 6, 8))


def hidden(model, latents, depth, timestep, condition):
    return diffusers_hidden(model, latents, depth, timestep=timestep, embeds=condition.embeds)


def family(kind):
    patch = 2 if kind == "1.5" else 1
    return Family(
        name=f"cogvideox-{kind}",
        transformer=lambda seed: tiny_transformer(kind, seed=seed),
        space=tiny_space(patch_size_t=patch if patch > 1 else None),
        sizes=((4, 8, 12), (6, 4, 10)),
        depths=(1, 3, 4),
        tokens=lambda size: (size[0] // patch, size[1] * size[2] // 4),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        block=lambda index: f"transformer_blocks.{index}",
    )


FAMILIES = [family(kind) for kind in KINDS]
