"""LTX-2: its video stream, without sound."""

import torch
from diffusers import LTX2VideoTransformer3DModel

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from tests.backbones.family import Family

NEWER = {"use_prompt_embeddings": False, "cross_attn_mod": True, "audio_cross_attn_mod": True}
"""What tells 2.3 from 2.0."""


def tiny(seed=0, *, layers=3, **changes):
    """A model 32 wide, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = {
        "in_channels": 8,
        "out_channels": 8,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "audio_in_channels": 6,
        "audio_out_channels": 6,
        "audio_num_attention_heads": 2,
        "audio_attention_head_dim": 8,
        "audio_cross_attention_dim": 16,
        "num_layers": layers,
        "caption_channels": 10,
        **changes,
    }
    model = LTX2VideoTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2)
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def text(batch, width=10):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([5 - 2 * (index % 3) for index in range(batch)])
    embeds = torch.randn(batch, 5, width, generator=generator)
    return TextCondition(embeds, torch.arange(5) < lengths[:, None])


def null_text(batch):
    return TextCondition(torch.zeros(batch, 1, 10), torch.ones(batch, 1, dtype=torch.bool))


def called(model, latents, timestep, condition, *, sound=1, seed=None, isolate=True):
    """The model called as its pipeline calls it, with silence or other sound, kept apart or not."""
    batch, frames, channels, height, width = latents.shape
    audio = torch.zeros(batch, sound, model.config.audio_in_channels)
    said = torch.zeros(batch, 5, 10 if model.config.use_prompt_embeddings else 16)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        audio, said = (torch.randn(part.shape, generator=generator) for part in (audio, said))
    level = torch.tensor(timestep).expand(batch)
    return model(
        hidden_states=latents.movedim(2, -1).reshape(batch, -1, channels),
        audio_hidden_states=audio,
        encoder_hidden_states=condition.embeds,
        audio_encoder_hidden_states=said,
        timestep=level,
        sigma=level,
        encoder_attention_mask=condition.mask,
        num_frames=frames,
        height=height,
        width=width,
        fps=24.0,
        audio_num_frames=sound,
        isolate_modalities=isolate,
        return_dict=False,
    )[0]


def hidden(model, latents, depth, timestep, condition, **how):
    """What leaves block `depth - 1` of the video stream."""
    seen = []
    hook = model.transformer_blocks[depth - 1].register_forward_hook(
        lambda module, inputs, output: seen.append(output[0])
    )
    try:
        called(model, latents, timestep, condition, **how)
    finally:
        hook.remove()
    return seen[0]


FAMILIES = [
    Family(
        name="ltx-2",
        transformer=tiny,
        space=LatentSpace(
            id="tiny-ltx2", channels=8, spatial_compression=32, temporal_compression=8,
            layout="BCTHW", mean=(0.1,) * 8, std=(1.5,) * 8,
        ),
        sizes=((4, 4, 6), (5, 3, 5)),
        depths=(1, 2, 3),
        tokens=lambda size: (size[0], size[1] * size[2]),
        text=text,
        null_text=null_text,
        hidden=hidden,
        lora_targets=lambda block: ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        block=lambda index: f"transformer_blocks.{index}",
    )
]  # fmt: skip
