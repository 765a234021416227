"""Models at their published sizes, on the meta device, and the clip that costs are counted for.

Settings are those of the published models as diffusers' classes and conversion scripts have them;
weights are never read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.models.transformers.transformer_mochi import MochiRoPE
from torch import Tensor

from benchmarks.counting import frozen_model
from gtsvj_reward import ImageCondition, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.latents.wan_vae import PUBLISHED

SPACE = LatentSpace(id="cogvideox-2b", channels=16, scaling_factor=1.15258426)
"""Latent space of CogVideoX-2B."""


def judge_of(transformer: Any, space: LatentSpace = SPACE, **changes: Any) -> VideoJudge:
    """A frozen judge with the paper's settings, on the transformer's device."""
    config = JudgeConfig(base_model="random", latent_space=space, **changes)
    judge = VideoJudge.from_transformer(transformer, config).requires_grad_(False)
    return judge.to(next(transformer.parameters()).device)


@dataclass(frozen=True, kw_only=True)
class FullModel:
    """A generator, its VAE, and the clip nearest to 49 frames of 480x720 that it can make."""

    make_transformer: Callable[[], Any]
    make_vae: Callable[[], Any]
    channels: int
    """Of the latents."""
    fps: float
    """Frames per second that its pipeline makes videos for."""
    spatial: int = 8
    """Pixels per latent."""
    temporal: int = 4
    """Frames per latent, after the first."""
    patch_size_t: int | None = None
    """Latent frames in one token, for CogVideoX 1.5."""
    size: tuple[int, int, int] = (49, 480, 720)
    """Frames, height and width of the clip in pixels."""
    image: tuple[int, tuple[int, int] | None] | None = None
    """Latent frames of a reference image, and the shape of its embeddings if the model takes any;
    None for a model of text alone."""

    @property
    def latents(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width) of the clip's latents."""
        frames, height, width = self.size
        steps = (frames - 1) // self.temporal + 1
        return steps, self.channels, height // self.spatial, width // self.spatial

    def clip(self, *, grad: bool = False) -> Tensor:
        """One clip of latents without values, in float32."""
        return torch.zeros(1, *self.latents, device="meta", requires_grad=grad)

    def reference(self) -> ImageCondition | None:
        """A reference image without values, of a model that takes one."""
        if self.image is None:
            return None
        (frames, embeds), (_, *size) = self.image, self.latents
        with torch.device("meta"):
            latents = torch.zeros(1, frames, *size)
            return ImageCondition(latents, None if embeds is None else torch.zeros(1, *embeds))

    def judge(self, transformer: Any, **changes: Any) -> VideoJudge:
        """A frozen judge with the paper's LoRA on a transformer of this kind."""
        space = LatentSpace(
            id="full-size",
            channels=self.channels,
            spatial_compression=self.spatial,
            temporal_compression=self.temporal,
            patch_size_t=self.patch_size_t,
        )
        return judge_of(transformer, space, **changes)

    def transformer(self) -> Any:
        """The frozen transformer in bfloat16, without values."""
        return frozen_model(self.make_transformer)

    def vae(self) -> Any:
        """The frozen VAE in bfloat16, without values."""
        return frozen_model(self.make_vae)


class PlainRoPE(MochiRoPE):
    """Mochi's rotary tables without autocast, which does not support the meta device."""

    def _create_rope(self, freqs: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        angles = torch.einsum("nd,dhf->nhf", pos.float(), freqs.float())
        return angles.cos(), angles.sin()


def mochi(**settings: Any) -> MochiTransformer3DModel:
    """Mochi as it runs on the meta device, inside `counting.fused_attention`."""
    model = MochiTransformer3DModel(**settings)
    model.rope = PlainRoPE()
    return model


WAN_22_VAE: Mapping[str, Any] = {**PUBLISHED["wan-2.2-5b"], "scale_factor_spatial": 16}

COGVIDEOX_5B: Mapping[str, Any] = {
    "num_attention_heads": 48,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}
COGVIDEOX_15: Mapping[str, Any] = {
    **COGVIDEOX_5B,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_height": 96,
    "sample_width": 170,
    "sample_frames": 81,
}
WAN_1B: Mapping[str, Any] = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
WAN_22_5B: Mapping[str, Any] = {
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "num_layers": 30,
    "in_channels": 48,
    "out_channels": 48,
}

FULL_MODELS: Mapping[str, FullModel] = {
    "CogVideoX-2B": FullModel(
        make_transformer=CogVideoXTransformer3DModel,
        make_vae=AutoencoderKLCogVideoX,
        channels=16,
        fps=8,
    ),
    "CogVideoX-5B": FullModel(
        make_transformer=partial(CogVideoXTransformer3DModel, **COGVIDEOX_5B),
        make_vae=AutoencoderKLCogVideoX,
        channels=16,
        fps=8,
    ),
    "CogVideoX1.5-5B": FullModel(
        make_transformer=partial(CogVideoXTransformer3DModel, **COGVIDEOX_15),
        make_vae=AutoencoderKLCogVideoX,
        channels=16,
        fps=16,
        patch_size_t=2,
    ),
    "Wan2.1-1.3B": FullModel(
        make_transformer=partial(WanTransformer3DModel, **WAN_1B),
        make_vae=AutoencoderKLWan,
        channels=16,
        fps=16,
    ),
    "Wan2.1-14B": FullModel(
        make_transformer=WanTransformer3DModel, make_vae=AutoencoderKLWan, channels=16, fps=16
    ),
    "Wan2.2-5B": FullModel(
        make_transformer=partial(WanTransformer3DModel, **WAN_22_5B),
        make_vae=partial(AutoencoderKLWan, **WAN_22_VAE),
        channels=48,
        fps=24,
        spatial=16,
        size=(49, 480, 704),
    ),
    "HunyuanVideo": FullModel(
        make_transformer=HunyuanVideoTransformer3DModel,
        make_vae=AutoencoderKLHunyuanVideo,
        channels=16,
        fps=24,
    ),
    "LTX-Video": FullModel(
        make_transformer=LTXVideoTransformer3DModel,
        make_vae=AutoencoderKLLTXVideo,
        channels=128,
        fps=24,
        spatial=32,
        temporal=8,
        size=(49, 480, 704),
    ),
    "Mochi 1": FullModel(
        make_transformer=mochi,
        make_vae=AutoencoderKLMochi,
        channels=12,
        fps=30,
        temporal=6,
    ),
}
"""Name -> model."""

IMAGE_MODELS: Mapping[str, FullModel] = {
    "CogVideoX-5B-I2V": FullModel(
        make_transformer=partial(
            CogVideoXTransformer3DModel,
            **COGVIDEOX_5B,
            in_channels=32,
            use_learned_positional_embeddings=True,
        ),
        make_vae=AutoencoderKLCogVideoX,
        channels=16,
        fps=8,
        image=(1, None),
    ),
    "CogVideoX1.5-5B-I2V": FullModel(
        make_transformer=partial(
            CogVideoXTransformer3DModel, **COGVIDEOX_15, in_channels=32, ofs_embed_dim=512
        ),
        make_vae=AutoencoderKLCogVideoX,
        channels=16,
        fps=16,
        patch_size_t=2,
        image=(1, None),
    ),
    "Wan2.1-14B-I2V": FullModel(
        make_transformer=partial(
            WanTransformer3DModel,
            in_channels=36,
            out_channels=16,
            image_dim=1280,
            added_kv_proj_dim=5120,
        ),
        make_vae=AutoencoderKLWan,
        channels=16,
        fps=16,
        image=(13, (257, 1280)),
    ),
    "Wan2.2-A14B-I2V": FullModel(
        make_transformer=partial(WanTransformer3DModel, in_channels=36, out_channels=16),
        make_vae=AutoencoderKLWan,
        channels=16,
        fps=16,
        image=(13, None),
    ),
    "Wan2.2-5B": replace(FULL_MODELS["Wan2.2-5B"], image=(1, None)),
    "HunyuanVideo-I2V": FullModel(
        make_transformer=partial(
            HunyuanVideoTransformer3DModel, image_condition_type="token_replace"
        ),
        make_vae=AutoencoderKLHunyuanVideo,
        channels=16,
        fps=24,
        image=(1, None),
    ),
}
"""Name -> image-to-video model; of Wan 2.2 A14B one expert."""
