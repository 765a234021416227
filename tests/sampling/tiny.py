"""Tiny pipelines of the real diffusers classes, and rewards made for tests."""

from inspect import signature

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from gtsvj_reward import GTSVJReward
from gtsvj_reward.sampling import latent_space
from tests.tiny import tiny_judge, tiny_transformer

SIZE = {"num_frames": 9, "height": 32, "width": 48}

STEPS = {"num_inference_steps": 4, "guidance_scale": 2.0}

CALL = {**SIZE, **STEPS}
"""Three latent frames of 4 x 6, which CogVideoX 1.5 pads to four."""


def embeds(words=6, dim=8, clips=1):
    """Prompt embeddings of a positive and a negative prompt."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(1, words, dim, generator=generator).repeat(clips, 1, 1)
        for name in ("prompt_embeds", "negative_prompt_embeds")
    }


def cogvideox_scheduler(cls=CogVideoXDDIMScheduler, **changes):
    """As published for CogVideoX: v-prediction, zero terminal signal-to-noise ratio."""
    config = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "snr_shift_scale": 1.0,
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
    }
    return cls(**{**config, **changes})


def stochastic_flow(**changes):
    """A flow-matching scheduler that draws noise at each step."""
    if "stochastic_sampling" not in signature(FlowMatchEulerDiscreteScheduler).parameters:
        pytest.skip("this diffusers has no stochastic flow matching")
    return FlowMatchEulerDiscreteScheduler(stochastic_sampling=True, **changes)


def tiny_cogvideox_vae():
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_height=32,
        sample_width=48,
    )
    return vae.eval().requires_grad_(False)


def words():
    """A tokenizer of the words `a dog runs`, and an encoder for them."""
    known = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "dog", "runs"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(known, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    torch.manual_seed(0)
    config = T5Config(vocab_size=6, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config).eval()


def cogvideox(kind="2b", *, scheduler=None, transformer=None, text=False):
    """A CogVideoX pipeline; with `text`, it reads prompts of the words `a dog runs`."""
    tokenizer, encoder = words() if text else (None, None)
    pipe = CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=tiny_cogvideox_vae(),
        transformer=(transformer or tiny_transformer(kind)).requires_grad_(False),
        scheduler=scheduler or cogvideox_scheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wan(scheduler=None, *, text=False):
    """A Wan pipeline with four latent channels; `text` as for `cogvideox`."""
    pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs are refused before 0.36")
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=3,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 0.8, 1.0],
    )
    tokenizer, encoder = words() if text else (None, None)
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae.eval().requires_grad_(False),
        transformer=transformer.eval().requires_grad_(False),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPES = {
    "2b": lambda: cogvideox("2b"),
    "5b": lambda: cogvideox("5b"),
    "1.5": lambda: cogvideox("1.5"),
    "dpm": lambda: cogvideox("5b", scheduler=cogvideox_scheduler(CogVideoXDPMScheduler)),
    "wan": wan,
}


def judge_reward(pipe, kind="2b", **changes):
    """A judge of the pipeline's own latents."""
    judge = tiny_judge(kind, latent_space=latent_space(pipe), **changes)
    return GTSVJReward(judge, check_statistics=False)


def run(pipe, seed=0, **arguments):
    """The pipeline's own latents of one seed, as they come."""
    call = {**embeds(), **CALL, "output_type": "latent", **arguments}
    return pipe(generator=torch.Generator().manual_seed(seed), **call).frames


def assert_same_clip(found, own):
    """Equal up to 1e-4 of the clip's spread: rounding that depends on the batch grows by steps."""
    assert found.shape == own.shape
    assert (found - own).abs().max() <= 1e-4 * own.std()


class Quadratic:
    """Minus the squared distance of each clip to a target of its shape; keeps what it was given."""

    def __init__(self, target=0.7):
        self.target = target
        self.calls = []

    def __call__(
        self, latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True
    ):
        self.calls.append(
            {
                "shape": tuple(latents.shape),
                "space": space,
                "fps": fps,
                "num_frames": num_frames,
                "text": text,
                "normalize": normalize,
            }
        )
        return -((latents.float() - self.target) ** 2).flatten(1).sum(dim=1)


class Failing(Quadratic):
    """Raises at its second call."""

    def __call__(self, latents, **arguments):
        scores = super().__call__(latents, **arguments)
        if len(self.calls) == 2:
            raise RuntimeError("the reward broke")
        return scores
