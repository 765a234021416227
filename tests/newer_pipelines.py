"""Tiny pipelines of HunyuanVideo 1.5 and LTX-2, of the real classes; they need diffusers 0.37."""

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from transformers import (
    ByT5Tokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from tests.backbones import family_hunyuan_video15, family_ltx2
from tests.latents.tiny import BY_NAME
from tests.pipelines import WORDS, tokenizer

CHAT = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}a"


def shorter(pipe):
    """The pipeline with prompts of 12 tokens, behind as many as its template has."""
    words = len(pipe.system_message.split())
    pipe.prompt_template_encode_start_idx, pipe.tokenizer_max_length = words, 12
    return pipe


def hunyuan_video15(kind=HunyuanVideo15Pipeline, **more):
    torch.manual_seed(0)
    says = tokenizer()
    says.chat_template = CHAT
    qwen = Qwen2_5_VLTextConfig(
        vocab_size=len(WORDS), hidden_size=8, intermediate_size=16, num_hidden_layers=4,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, bos_token_id=3,
        eos_token_id=1, rope_scaling={"type": "mrope", "mrope_section": [1, 1, 0]},
    )  # fmt: skip
    glyphs = T5Config(vocab_size=384, d_model=6, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    task = "i2v" if more else "t2v"
    parts = {
        "text_encoder": Qwen2_5_VLTextModel(qwen),
        "tokenizer": says,
        "transformer": family_hunyuan_video15.tiny(layers=2, task_type=task, target_size=32),
        "vae": BY_NAME["hunyuan-video-1.5"].make(),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder_2": T5EncoderModel(glyphs),
        "tokenizer_2": ByT5Tokenizer(),
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
    }
    return shorter(kind(**parts, **more))


def hunyuan_video15_image():
    size = {"image_size": 32, "patch_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(1)
    vision = SiglipVisionModel(SiglipVisionConfig(hidden_size=5, intermediate_size=8, **size))
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    return hunyuan_video15(
        HunyuanVideo15ImageToVideoPipeline, image_encoder=vision, feature_extractor=processor
    )


def ltx2(kind=LTX2Pipeline):
    """Without the parts that make sound audible."""
    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS), "hidden_size": 10, "intermediate_size": 16, "head_dim": 4,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 16,
        "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    gemma = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    connectors = LTX2TextConnectors(
        caption_channels=10, text_proj_in_factor=3, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=5, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=5, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
    )  # fmt: skip
    says = tokenizer()
    says.model_max_length = 12
    sound = AutoencoderKLLTX2Audio(
        base_channels=16, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, mel_bins=32
    )
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=BY_NAME["ltx2"].make(),
        audio_vae=sound,
        text_encoder=Gemma3ForConditionalGeneration(gemma),
        tokenizer=says,
        connectors=connectors,
        transformer=family_ltx2.tiny(layers=2, audio_in_channels=16, audio_out_channels=16),
        vocoder=None,
    )


def ltx2_image():
    return ltx2(LTX2ImageToVideoPipeline)
