"""Operations of a judge on Mochi as a formula, which does not depend on running it anywhere.

`cost.py` counts Mochi on the meta device with a stand-in for the one operator that does not run
there; this formula is what that count is compared with, and is itself compared with operations
counted on the CPU.
"""

from itertools import pairwise
from typing import Any

from gtsvj_reward import JudgeConfig
from gtsvj_reward.backbones.lora import lora_blocks


def mochi_operations(model: Any, config: JudgeConfig, size: tuple[int, int, int]) -> int:
    """Floating point operations of one clip with the null text, forward.

    Args:
        model: the transformer's config.
        config: of the judge.
        size: latent frames, height and width.
    """
    steps, height, width = size
    depth = config.depth or model.num_layers
    dim = model.num_attention_heads * model.attention_head_dim
    tokens = steps * (height // model.patch_size) * (width // model.patch_size)
    blocks = sum(
        block_operations(model, dim, tokens, last=index == model.num_layers - 1)
        for index in range(depth)
    )
    adapted = len(lora_blocks(depth, config.lora_placement)) if config.lora_rank else 0
    adapter = adapted * 4 * tokens * linear(dim, config.lora_rank, dim)
    head = tokens * linear(dim, config.head_width) + steps * linear(config.head_width, 1)
    out = model.patch_size**2 * (model.out_channels or model.in_channels)
    behind = linear(dim, 2 * dim) + tokens * linear(dim, out)
    return embedding_operations(model, dim, tokens) + blocks + behind + adapter + head


def linear(*widths: int) -> int:
    """Operations of linear layers one after the other, for one token."""
    return sum(2 * inputs * outputs for inputs, outputs in pairwise(widths))


def block_operations(model: Any, dim: int, tokens: int, *, last: bool) -> int:
    """One block; the last one of the model has no way out for the text."""
    text, words = model.pooled_projection_dim, model.max_sequence_length
    inner, text_inner = 8 * dim // 3, 8 * text // 3
    video = tokens * (4 * linear(dim, dim) + 2 * linear(dim, inner) + linear(inner, dim))
    attention = 4 * tokens * tokens * dim  # no word of the null text is valid
    modulation = linear(dim, 4 * dim)
    projections = words * 3 * linear(text, dim)
    if last:
        return video + attention + modulation + projections + linear(dim, text)
    feed_forward = 2 * linear(text, text_inner) + linear(text_inner, text)
    way_out = words * (linear(dim, text) + feed_forward) + linear(dim, 4 * text)
    return video + attention + modulation + projections + way_out


def embedding_operations(model: Any, dim: int, tokens: int) -> int:
    """Patches, positions, the timestep, and the text in its two forms."""
    text, words = model.text_embed_dim, model.max_sequence_length
    patches = tokens * linear(model.in_channels * model.patch_size**2, dim)
    positions = tokens * linear(3, dim // 2)
    timestep = linear(model.time_embed_dim, dim, dim)
    pooling = (words + 1) * (linear(text, 2 * text) + 4 * text) + linear(text, text, dim)
    return (
        patches + positions + timestep + pooling + words * linear(text, model.pooled_projection_dim)
    )
