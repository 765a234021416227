"""HunyuanVideo 1.5, of text to video."""

import torch
from diffusers import HunyuanVideo15Transformer3DModel

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from tests.backbones.family import Family


def tiny(seed=0, *, layers=3, **changes):
    """A model 32 wide, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = {
        "in_channels": 9,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": layers,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 8,
        "text_embed_2_dim": 6,
        "image_embed_dim": 5,
        "rope_axes_dim": (4, 6, 6),
        "task_type": "t2v",
        **changes,
    }
    model = HunyuanVideo15Transformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2)
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def text(batch):
    """Prompts of five tokens and fewer."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([5 - 2 * (index % 3) for index in range(batch)])
    embeds = torch.randn(batch, 5, 8, generator=generator)
    return TextCondition(embeds, torch.arange(5) < lengths[:, None])


def null_text(batch):
    return TextCondition(torch.zeros(batch, 2, 8), torch.tensor([[True, False]]).expand(batch, 2))


def called(model, latents, timestep, condition, *, image=None, embeds=None):
    """The model called as its pipelines call it, of text or of an image."""
    batch, _, frames, height, width = latents.transpose(1, 2).shape
    given = torch.zeros(batch, 4, frames, height, width)
    mask = torch.zeros(batch, 1, frames, height, width)
    if image is not None:
        given[:, :, 0], mask[:, :, 0] = image, 1
    return model(
        hidden_states=torch.cat([latents.transpose(1, 2), given, mask], dim=1),
        image_embeds=torch.zeros(batch, 729, 5) if embeds is None else embeds,
        timestep=torch.tensor(timestep).expand(batch).to(latents),
        encoder_hidden_states=condition.embeds,
        encoder_attention_mask=condition.mask,
        encoder_hidden_states_2=torch.zeros(batch, 256, 6),
        encoder_attention_mask_2=torch.zeros(batch, 256),
    ).sample


def hidden(model, latents, depth, timestep, condition):
    """What leaves block `depth - 1`."""
    seen = []
    hook = model.transformer_blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    try:
        called(model, latents, timestep, condition)
    finally:
        hook.remove()
    return seen[0]


FAMILIES = [
    Family(
        name="hunyuan_video-1.5",
        transformer=tiny,
        space=LatentSpace(
            id="tiny-hunyuan-1.5", channels=4, spatial_compression=16, layout="BCTHW"
        ),
        sizes=((3, 4, 6), (4, 3, 5)),
        depths=(1, 2, 3),
        tokens=lambda size: (size[0], size[1] * size[2]),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        block=lambda index: f"transformer_blocks.{index}",
    )
]
