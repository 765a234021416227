"""HunyuanVideo: with its two kinds of blocks, and with one kind alone."""

import torch
from diffusers import HunyuanVideoTransformer3DModel

from gtsvj_reward.backbones import TextCondition
from tests.backbones.family import Family
from tests.tiny import tiny_space

KINDS = {
    "mixed": {"num_layers": 2, "num_single_layers": 3},
    "double": {"num_layers": 4, "num_single_layers": 0},
    "single": {"num_layers": 0, "num_single_layers": 3, "guidance_embeds": False},
}


def tiny(kind="mixed", seed=0, **changes):
    """A model 32 wide, distilled unless its kind says otherwise."""
    torch.manual_seed(seed)
    config = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 8,
        "pooled_projection_dim": 6,
        "rope_axes_dim": (4, 6, 6),
        **KINDS[kind],
        **changes,
    }
    model = HunyuanVideoTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2)  # away from the near-identity of a fresh initialisation
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    # Whether weights want gradients decides how torch multiplies, and so the last bit on CPU.
    return model.requires_grad_(False)


def text(batch):
    """Prompts of five tokens and fewer, padded with what must not matter."""
    generator = torch.Generator().manual_seed(3)
    embeds = torch.randn(batch, 5, 8, generator=generator)
    pooled = torch.randn(batch, 6, generator=generator)
    lengths = torch.tensor([5 - 2 * (index % 3) for index in range(batch)])
    return TextCondition(embeds, torch.arange(5) < lengths[:, None], pooled)


def null_text(batch):
    mask = torch.tensor([[True, False]]).expand(batch, 2)
    return TextCondition(torch.zeros(batch, 2, 8), mask, torch.zeros(batch, 6))


def blocks(model):
    return [*model.transformer_blocks, *model.single_transformer_blocks]


def hidden(model, latents, depth, timestep, condition):
    """What leaves block `depth - 1`, the model called as `HunyuanVideoPipeline` calls it."""
    seen = []
    hook = blocks(model)[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    try:
        model(
            hidden_states=latents.transpose(1, 2).contiguous(),
            timestep=torch.tensor(timestep).expand(len(latents)),
            encoder_hidden_states=condition.embeds,
            encoder_attention_mask=condition.mask.to(model.dtype),
            pooled_projections=condition.pooled,
            guidance=torch.tensor([6.0] * len(latents), dtype=model.dtype) * 1000.0,
        )
    finally:
        hook.remove()
    return seen[0]


def block_name(kind, index):
    double = KINDS[kind]["num_layers"]
    if index < double:
        return f"transformer_blocks.{index}"
    return f"single_transformer_blocks.{index - double}"


def lora_targets(kind, index):
    out = "attn.to_out.0" if index < KINDS[kind]["num_layers"] else "proj_out"
    return ("attn.to_q", "attn.to_k", "attn.to_v", out)


def family(kind):
    return Family(
        name=f"hunyuan_video-{kind}",
        transformer=lambda seed: tiny(kind, seed),
        space=tiny_space(layout="BCTHW"),
        sizes=((3, 8, 6), (4, 4, 10)),
        depths={"mixed": (1, 2, 3, 5), "double": (1, 2, 4), "single": (1, 2, 3)}[kind],
        tokens=lambda size: (size[0], size[1] * size[2] // 4),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda index: lora_targets(kind, index),
        block=lambda index: block_name(kind, index),
    )


FAMILIES = [family(kind) for kind in KINDS]
