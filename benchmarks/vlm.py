"""A judge of pixels, for comparison: Qwen2-VL-2B with the settings of VideoReward.

VideoReward samples a decoded video at 2 frames per second and lets each frame have at most 448x448
pixels. Here each has just that many. The text, instructions included, is taken as 512 tokens, an
assumption; frames count for more. Attention to later tokens is counted although it is masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLModel

from benchmarks.counting import frozen_model

SAMPLED_FPS = 2.0
EDGE = 448
"""Height and width of a frame in pixels."""
TEXT_TOKENS = 512
LEAST_FRAMES = 4
"""Minimum number of frames of Qwen2-VL's video reader."""

VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 1536}
LANGUAGE = {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [16, 24, 24],
    },
}
"""Settings of Qwen2-VL-2B."""


def qwen2_vl(vision: dict[str, Any] = VISION, language: dict[str, Any] = LANGUAGE) -> Any:
    """The frozen model in bfloat16, without values and without a head."""
    config = Qwen2VLConfig(vision_config=dict(vision), text_config=dict(language))
    return frozen_model(lambda: Qwen2VLModel(config))


def sampled_frames(frames: int, fps: float) -> int:
    """Frames read: 2 per second, an even number, at least 4."""
    return max(LEAST_FRAMES, int(frames / fps * SAMPLED_FPS) // 2 * 2)


@dataclass(frozen=True)
class Looked:
    """Input of the model for one video."""

    grid: tuple[int, int, int]
    """Pairs of frames, and patches in height and width."""

    @property
    def patches(self) -> int:
        """Patches of the whole video."""
        pairs, rows, columns = self.grid
        return pairs * rows * columns

    @property
    def tokens(self) -> int:
        """Tokens of the language model: one for four patches, and the text."""
        return self.patches // 4 + TEXT_TOKENS


def look_at(model: Any, frames: int) -> Looked:
    """Patches of so many frames."""
    side = EDGE // model.config.vision_config.patch_size
    return Looked((frames // 2, side, side))


def scoring(model: Any, frames: int, *, grad: bool = False) -> Callable[[], Tensor]:
    """A call of the model on so many frames, to be counted.

    Args:
        model: from `qwen2_vl`.
        frames: an even number.
        grad: whether pixels want a gradient.
    """
    looked = look_at(model, frames)
    vision = model.config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.zeros(looked.patches, width, device="meta", dtype=model.dtype)
    pixels.requires_grad_(grad)

    def run() -> Tensor:
        where = torch.zeros(looked.patches, 2, dtype=torch.long, device="meta")
        seen = model.visual(pixels, grid_thw=torch.tensor([looked.grid]), position_ids=where)
        text = seen.pooler_output.new_zeros(TEXT_TOKENS, seen.pooler_output.shape[1])
        joint = torch.cat([seen.pooler_output, text])[None]
        positions = torch.zeros(3, 1, looked.tokens, dtype=torch.long, device="meta")
        output = model.language_model(inputs_embeds=joint, position_ids=positions, use_cache=False)
        last: Tensor = output.last_hidden_state[:, -1]
        return last

    return run
