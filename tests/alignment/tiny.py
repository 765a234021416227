"""A whole CogVideoX pipeline of the real classes, tiny, with random weights."""

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXPipeline
from transformers import T5Config, T5EncoderModel

from gtsvj_reward.alignment import ClipSize
from gtsvj_reward.toy.words import make_tokenizer
from tests.tiny import tiny_transformer

SIZE = ClipSize(num_frames=9, height=32, width=48)

TEXTS = ["one red circle falling", "two blue squares drifting"]


def tiny_pipeline(kind="2b", *, layers=2, dtype=torch.float32):
    """The same weights in every call."""
    transformer = tiny_transformer(
        kind, layers=layers, text_embed_dim=16, sample_width=6, sample_height=4
    )
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    vae = AutoencoderKLCogVideoX(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=32,
        sample_width=48,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
    )
    pipe = CogVideoXPipeline(tokenizer, text_encoder, vae, transformer, scheduler)
    for module in (pipe.transformer, pipe.vae, pipe.text_encoder):
        module.requires_grad_(False).eval().to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def moved(policy, size=0.1):
    """The policy with an adapter that changes something."""
    generator = torch.Generator().manual_seed(5)
    for parameter in policy.parameters().values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(size * noise)
    return policy
