"""Mochi 1: video and text in one attention, positions turned by learned frequencies."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gtsvj_reward.backbones.base import Share, TextCondition, TransformerBackbone, check_depth
from gtsvj_reward.backbones.sharing import frozen_view

SETTINGS = (
    "activation_fn",
    "attention_head_dim",
    "max_sequence_length",
    "num_attention_heads",
    "patch_size",
    "qk_norm",
)
"""Fields of the model's config that change hidden states without changing any weight."""

CLEAN_TIMESTEP = 1000.0
"""What the model itself is given for clean latents; it counts up, from 0 for pure noise."""


def own_parameters(model: nn.Module) -> nn.Module:
    """A module with the parameters that a model holds itself, and none of its parts.

    The table of parameters is the model's own, so that whoever compares sees one that was replaced.
    """
    top = nn.Module()
    top._parameters = model._parameters
    return top


def check_prefix(mask: Bool[Tensor, "batch words"]) -> None:
    """Refuse masks with a valid token after one that is not.

    The attention of diffusers moves the valid tokens of a prompt to the front and leaves them
    there, so that any other mask would add what belongs to one token to another.

    Raises:
        ValueError: naming the first sample.
    """
    late = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)
    if late.any():
        raise ValueError(
            f"the text mask of sample {int(late.nonzero()[0])} has valid tokens after padding: "
            "Mochi takes prompts padded on the right"
        )


class MochiBackbone(TransformerBackbone):
    """The first blocks of a `MochiTransformer3DModel`.

    `timestep` is the noise level in 0..1000, 0 for clean latents and 1000 for pure noise. The model
    counts the other way round and is given 1000 - timestep.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to keep, all of them by default.
        share: makes a module over the weights of a part of the transformer.
    """

    family = "MochiTransformer3DModel"
    null_words: int

    def __init__(
        self, transformer: Any, depth: int | None = None, *, share: Share = frozen_view
    ) -> None:
        super().__init__(transformer)
        config = transformer.config
        self.depth = check_depth(depth, len(transformer.transformer_blocks))
        self.dim = config.num_attention_heads * config.attention_head_dim
        self.latent_channels = config.in_channels
        self.patch_size = config.patch_size
        self.settings = json.dumps({name: config[name] for name in SETTINGS}, sort_keys=True)
        self.null_words = int(config.max_sequence_length)
        self.text_dim: int = config.text_embed_dim
        self.pos_frequencies: nn.Parameter = share(own_parameters(transformer)).pos_frequencies
        self.rope = share(transformer.rope)
        self.patch_embed = share(transformer.patch_embed)
        self.time_embed = share(transformer.time_embed)
        self.transformer_blocks = nn.ModuleList(
            share(block) for block in transformer.transformer_blocks[: self.depth]
        )

    @classmethod
    def skeleton(cls, config: Mapping[str, Any], depth: int) -> Any:
        """A model with the first `depth` blocks; called where new weights take no memory.

        A model with fewer layers would be another one: the last block of every Mochi is built
        without the text's way out, and these blocks are not the last of theirs.
        """
        from diffusers import MochiTransformer3DModel

        model = MochiTransformer3DModel.from_config(dict(config))
        del model.transformer_blocks[depth:]
        return model

    def lora_targets(self, block: int) -> list[str]:
        """Full names of to_q, to_k, to_v and to_out.0, the video's part of the attention.

        The text has projections of its own, `add_q_proj` and so on, which are left as they are.
        """
        prefix = f"transformer_blocks.{block}.attn1"
        return [f"{prefix}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]

    def text_inputs(
        self, text: TextCondition | None, batch: int, like: Tensor
    ) -> tuple[Float[Tensor, "batch words text_dim"], Bool[Tensor, "batch words"]]:
        """Prompt embeddings for the batch and their mask.

        Without text they are zeros with no valid token: that is what Mochi was trained on as no
        prompt, and its attention is finite there, as the video still attends to itself.

        Raises:
            ValueError: on another batch size or width, a pooled embedding, or padding in front.
        """
        if text is None:
            shape = (batch, self.null_words)
            nothing = torch.zeros(shape, dtype=torch.bool, device=like.device)
            return like.new_zeros(*shape, self.text_dim), nothing
        if text.pooled is not None:
            raise ValueError("Mochi pools the text itself: leave `pooled` out")
        words = text.embeds.shape[1]
        if tuple(text.embeds.shape) != (batch, words, self.text_dim):
            raise ValueError(
                f"expected text embeddings ({batch}, words, {self.text_dim}), "
                f"got {tuple(text.embeds.shape)}"
            )
        if text.mask is None:
            everything = torch.ones((batch, words), dtype=torch.bool, device=like.device)
            return text.embeds.to(like), everything
        if tuple(text.mask.shape) != (batch, words):
            raise ValueError(f"expected a mask {(batch, words)}, got {tuple(text.mask.shape)}")
        check_prefix(text.mask)
        return text.embeds.to(like), text.mask.to(like.device)

    def forward(
        self,
        latents: Float[Tensor, "batch time channel height width"],
        *,
        timestep: float,
        text: TextCondition | None = None,
    ) -> Float[Tensor, "batch step tokens dim"]:
        """Hidden states of the video stream; see `Backbone.forward`.

        The rotary tables come from a weight, so they are made in every call: a sum of three
        products per angle, some 1/20,000 of what one block of the published model computes.
        """
        self.check_geometry(latents)
        latents = latents.to(self.patch_embed.proj.weight.dtype)
        batch, steps, _, height, width = latents.shape
        rows, columns = height // self.patch_size, width // self.patch_size

        embeds, mask = self.text_inputs(text, batch, latents)
        timesteps = latents.new_full((batch,), CLEAN_TIMESTEP - timestep)
        conditioning, words = self.time_embed(timesteps, embeds, mask, hidden_dtype=latents.dtype)
        tokens = self.patch_embed(latents.flatten(0, 1))  # (batch * step, tokens, dim)
        tokens = tokens.unflatten(0, (batch, steps)).flatten(1, 2)
        rotary = self.rope(
            self.pos_frequencies, steps, rows, columns, device=latents.device, dtype=torch.float32
        )
        for block in self.transformer_blocks:
            tokens, words = self.run_block(block, tokens, words, conditioning, mask, rotary)
        hidden: Tensor = tokens.unflatten(1, (steps, rows * columns))
        return hidden
