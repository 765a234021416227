"""Tiny real diffusers models, made from a seed, and judges on them."""

import torch
from diffusers import CogVideoXTransformer3DModel

from gtsvj_reward.judge import Aspect, Geometry, JudgeConfig, VideoJudge
from gtsvj_reward.latents.space import LatentSpace

KINDS = {
    "2b": {"use_rotary_positional_embeddings": False},
    "5b": {"use_rotary_positional_embeddings": True},
    "1.5": {"use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False},
}
"""What tells the three kinds of CogVideoX apart in `config.json`."""


def tiny_transformer(kind="2b", *, layers=4, seed=0, **changes):
    """A CogVideoX transformer of a given kind, 32 wide, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 8,
        "num_layers": layers,
        "sample_width": 12,
        "sample_height": 8,
        "sample_frames": 9,
        "max_text_seq_length": 6,
        **KINDS[kind],
        **changes,
    }
    model = CogVideoXTransformer3DModel(**config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)  # away from the near-identity of a fresh initialisation
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def tiny_space(**changes):
    """The latent space that the tiny transformers work in."""
    fields = {
        "id": "tiny",
        "channels": 4,
        "spatial_compression": 8,
        "temporal_compression": 4,
        "layout": "BTCHW",
        "scaling_factor": 1.0,
    }
    return LatentSpace(**{**fields, **changes})


def tiny_judge(kind="2b", *, trained=True, transformer=None, **changes):
    """A judge on a tiny transformer; `trained` moves adapter and statistics off their start."""
    transformer = transformer or tiny_transformer(kind)
    fields = {
        "base_model": "tiny",
        "latent_space": tiny_space(patch_size_t=2 if kind == "1.5" else None),
        "head_width": 16,
        "reward_mean": 0.25,
        "reward_std": 0.5,
        "reward_data": "two clips",
        "geometry": Geometry(latent_frames=(3, 7), height=(4, 12), width=(4, 16), fps=(8.0, 30.0)),
    }
    judge = VideoJudge.from_transformer(transformer, JudgeConfig(**{**fields, **changes}))
    if trained:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in judge.named_parameters():
            if ".lora_B." in name:
                parameter.data.normal_(0, 0.3, generator=generator)
    return judge


ASPECTS = (
    Aspect(name="clear", low=1, high=5),
    Aspect(name="focus", low=0, high=3),
    Aspect(name="movement smoothness", low=0, high=4),
)


def tiny_aspect_judge(*, stage="aspects", spread=2.0, aspects=ASPECTS, **changes):
    """A judge of a later stage whose aspects differ between clips, with statistics."""
    count = len(aspects)
    fields = {
        "stage": stage,
        "aspects": aspects,
        "aspect_mean": tuple(0.4 + 0.1 * index for index in range(count)),
        "aspect_covariance": tuple(
            tuple(0.04 if row == column else 0.01 for column in range(count))
            for row in range(count)
        ),
    }
    judge = tiny_judge(**{**fields, **changes})
    generator = torch.Generator().manual_seed(2)
    judge.head.aspects.weight.data.normal_(0, spread, generator=generator)
    if judge.preference is not None:
        judge.preference.weight.data.normal_(0, 1, generator=generator)
        judge.preference.bias.data.fill_(0.3)
    return judge


def clips(batch=2, time=5, height=8, width=12, *, seed=0, dtype=torch.float32):
    """Gaussian latents of the tiny space."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, 4, height, width, generator=generator).to(dtype)


def mixed_clips():
    """Six clips of three shapes, out of order."""
    shapes = [(3, 8, 12), (5, 8, 12), (3, 8, 12), (3, 4, 8), (5, 8, 12), (3, 4, 8)]
    return [clips(1, *shape, seed=seed)[0] for seed, shape in enumerate(shapes)]
