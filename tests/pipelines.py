"""Tiny text-to-video pipelines of every family, of the real classes, that read prompts."""

from functools import partial

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    LTXPipeline,
    MochiPipeline,
    WanImageToVideoPipeline,
    WanPipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.backbones.family_hunyuan_video import tiny as tiny_hunyuan_video
from tests.backbones.family_mochi import tiny_mochi
from tests.backbones.family_wan import tiny_wan
from tests.backbones.test_ltx import transformer as tiny_ltx
from tests.latents.tiny import BY_NAME
from tests.tiny import tiny_transformer

WORDS = ("<pad>", "</s>", "<unk>", "<s>", "a", "dog", "runs", "red", "square")
TEMPLATE = 57
"""Words of HunyuanVideo's template before the prompt, of which it drops 95 tokens."""


def tokenizer(before=0):
    """Words of `WORDS`, an end, and `before` tokens in front."""
    known = {word: index for index, word in enumerate(WORDS)}
    model = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.post_processor = processors.TemplateProcessing(
        single=" ".join(["<s>"] * before + ["$A", "</s>"]),
        special_tokens=[("<s>", known["<s>"]), ("</s>", known["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def t5(width, kind=T5Config, model=T5EncoderModel):
    torch.manual_seed(0)
    config = kind(vocab_size=len(WORDS), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return model(config)


def cogvideox():
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    vae = BY_NAME["cogvideox"].make()
    return CogVideoXPipeline(tokenizer(), t5(8), vae, tiny_transformer("5b", layers=2), scheduler)


def wan():
    encoder = t5(8, UMT5Config, UMT5EncoderModel)
    vae = BY_NAME["wan-2.1"].make()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return WanPipeline(tokenizer(), encoder, vae, scheduler, tiny_wan(layers=2))


def ltx():
    scheduler = FlowMatchEulerDiscreteScheduler()
    vae = BY_NAME["ltx-0.9.0"].make()
    return LTXPipeline(scheduler, vae, t5(8), tokenizer(), tiny_ltx(num_layers=2))


def mochi():
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    vae = BY_NAME["mochi"].make()
    transformer = tiny_mochi(layers=2, in_channels=12)
    return MochiPipeline(scheduler, vae, t5(16), tokenizer(), transformer)


def hunyuan_video():
    torch.manual_seed(0)
    words = len(WORDS)
    llama = LlamaConfig(
        vocab_size=words, hidden_size=8, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, pad_token_id=0,
    )  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=words, hidden_size=6, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return HunyuanVideoPipeline(
        LlamaModel(llama),
        tokenizer(before=95 - TEMPLATE),
        tiny_hunyuan_video(num_layers=1, num_single_layers=1),
        BY_NAME["hunyuan-video"].make(),
        FlowMatchEulerDiscreteScheduler(),
        CLIPTextModel(clip),
        tokenizer(),
    )


def cogvideox_image(kind="5b"):
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    later = kind == "1.5"
    vae = BY_NAME["cogvideox"].make(invert_scale_latents=later, scaling_factor=0.7)
    # What is drawn from the posterior is its mode.
    vae.encoder.conv_out.conv.weight.data[vae.config.latent_channels :] = 0
    vae.encoder.conv_out.conv.bias.data[vae.config.latent_channels :] = -40
    changes = {"ofs_embed_dim": 16} if later else {}
    transformer = tiny_transformer(kind, layers=2, in_channels=8, **changes)
    return CogVideoXImageToVideoPipeline(tokenizer(), t5(8), vae, transformer, scheduler)


def wan_image(kind="2.1"):
    """2.1, and an expert of 2.2, which has no image encoder."""
    torch.manual_seed(0)
    size = {"image_size": 32, "patch_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(hidden_size=8, intermediate_size=16, **size)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    sees = {"image_encoder": CLIPVisionModel(vision), "image_processor": processor}
    return WanImageToVideoPipeline(
        tokenizer(),
        t5(8, UMT5Config, UMT5EncoderModel),
        BY_NAME["wan-2.1"].make(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=tiny_wan_image(kind, layers=2),
        **(sees if kind == "2.1" else {}),
    )


def wan_image_5b():
    """The 5B model of 2.2, of 48 channels: an image takes the place of the first frame."""
    channels = {"z_dim": 48, "latents_mean": [0.1] * 48, "latents_std": [1.2] * 48}
    return WanImageToVideoPipeline(
        tokenizer(),
        t5(8, UMT5Config, UMT5EncoderModel),
        BY_NAME["wan-2.2-5b"].make(**channels),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=tiny_wan("2.2-5b", layers=2, in_channels=48, out_channels=48),
        expand_timesteps=True,
    )


def hunyuan_video_image(kind="token_replace"):
    """Without its text encoders: prompts must be given as embeddings."""
    channels = {"in_channels": 9, "out_channels": 4} if kind == "latent_concat" else {}
    model = tiny_hunyuan_video(
        num_layers=1, num_single_layers=1, image_condition_type=kind, **channels
    )
    vae, scheduler = BY_NAME["hunyuan-video"].make(), FlowMatchEulerDiscreteScheduler()
    return HunyuanVideoImageToVideoPipeline(None, None, model, vae, scheduler, None, None, None)


def tiny_wan_image(kind="2.1", **changes):
    sees = {"image_dim": 8, "added_kv_proj_dim": 32} if kind == "2.1" else {}
    return tiny_wan("2.1", in_channels=12, out_channels=4, **{**sees, **changes})


IMAGE_PIPELINES = {
    "cogvideox-5b": cogvideox_image,
    "cogvideox-1.5": partial(cogvideox_image, "1.5"),
    "hunyuan_video": hunyuan_video_image,
    "hunyuan_video-concat": partial(hunyuan_video_image, "latent_concat"),
    "wan-2.1": wan_image,
    "wan-2.2": partial(wan_image, "2.2"),
    "wan-2.2-5b": wan_image_5b,
}
"""Tiny image-to-video pipelines, of the real classes."""


def frozen(make):
    """A pipeline without gradients, in evaluation mode, that shows no progress."""
    pipe = make()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES = {make.__name__: make for make in (cogvideox, hunyuan_video, ltx, mochi, wan)}
SIZES = {
    "cogvideox": {"num_frames": 9, "height": 32, "width": 32},
    "hunyuan_video": {"num_frames": 9, "height": 32, "width": 32},
    "ltx": {"num_frames": 17, "height": 64, "width": 96},
    "mochi": {"num_frames": 13, "height": 32, "width": 32},
    "wan": {"num_frames": 9, "height": 32, "width": 32},
}
"""Three latent frames each."""
