"""Backbones of known diffusers classes: built over a transformer's weights, whole or in part."""

import json
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from torch import nn

from gtsvj_reward.backbones.base import Backbone
from gtsvj_reward.backbones.sharing import take_weights
from gtsvj_reward.backbones.taps import make_visible


class TransformerBackbone(Backbone):
    """A backbone of a known diffusers class, which can be built from one and loaded in part.

    The model is one of our own, of that class, over the weights of the given transformer: its
    hooks, mode, adapters and attention processors are left behind.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to use, all of them by default.
        live: follow the transformer, whose parameters the model then has; see `LiveWeights`.

    Raises:
        ValueError: for a depth out of range, or a model for another task than text to video.
        SharingError: for weights that cannot be shared.
    """

    config: Any
    deciding: tuple[str, ...]
    """Fields of the model's config that change hidden states without changing any weight."""
    attention = "transformer_blocks.{}.attn1"
    """Name of a block's self-attention on the video, by the number of the block."""
    output_parts: tuple[str, ...] = ("norm_out", "proj_out")

    def __init__(self, transformer: Any, depth: int | None = None, *, live: bool = False) -> None:
        super().__init__()
        config = transformer.config
        self.configure(config)
        available = len(self.blocks_of(transformer))
        self.depth = check_depth(depth, available)
        self.whole = self.depth == available
        # Buffers are made; weights, some of which draw random numbers, take no memory.
        with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
            self.model = self.skeleton(config, self.depth)
        self.kept_in_float32 = frozenset(
            getattr(diffusers, self.family)._keep_in_fp32_modules or ()
        )
        self.live = take_weights(self.model, transformer, self.output_parts, live=live)
        for block in self.blocks():
            make_visible(block)
        self.eval()

    def configure(self, config: Any) -> None:
        """Set the attributes that follow from the model's config, and reject other tasks."""
        self.config = config
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size
        self.settings = json.dumps(self.decisions(config), sort_keys=True)

    def decisions(self, config: Any) -> dict[str, Any]:
        """What decides hidden states besides the weights; part of the fingerprint."""
        return {name: config[name] for name in self.deciding}

    @staticmethod
    def blocks_of(model: Any) -> list[nn.Module]:
        """The blocks of a diffusers model, in order."""
        return list(model.transformer_blocks)

    def blocks(self) -> list[nn.Module]:
        """The blocks in use, in order."""
        return self.blocks_of(self.model)

    def lora_targets(self, block: int) -> list[str]:
        """Names of to_q, to_k, to_v and to_out.0 of a block's self-attention on the video."""
        prefix = self.attention.format(block)
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    @classmethod
    def block_count(cls, config: Mapping[str, Any]) -> int:
        """Blocks of a model, from its config."""
        return int(config["num_layers"])

    @classmethod
    def truncated(cls, config: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The config of a model that has the first `depth` blocks only."""
        return {**config, "num_layers": depth}

    @classmethod
    def skeleton(cls, config: Mapping[str, Any], depth: int) -> Any:
        """A model with the first `depth` blocks; called where new weights take no memory."""
        shorter = cls.truncated(config, depth)
        # diffusers drops the values that it names as defaults, the number of layers among them.
        shorter.pop("_use_default_values", None)
        return getattr(diffusers, cls.family).from_config(shorter)


def check_depth(depth: int | None, available: int) -> int:
    """The number of blocks to use: all of them for None.

    Raises:
        ValueError: if `depth` is not in 1..available.
    """
    if depth is None:
        return available
    if not 1 <= depth <= available:
        raise ValueError(f"`depth` must be in 1..{available} (the model's blocks), got {depth}")
    return depth
