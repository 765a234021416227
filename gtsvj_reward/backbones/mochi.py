"""Mochi 1: video and text in one attention, positions turned by learned frequencies."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

CLEAN_TIMESTEP = 1000.0
"""What the model itself is given for clean latents; it counts up, from 0 for pure noise."""


def check_prefix(mask: Bool[Tensor, "batch words"]) -> None:
    """Reject masks with a valid token after one that is not.

    The attention of diffusers moves the valid tokens of a prompt to the front and leaves them
    there, so that any other mask would add what belongs to one token to another.
    """
    late = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)
    if late.any():
        raise ValueError(
            f"the text mask of sample {int(late.nonzero()[0])} has valid tokens after padding: "
            "Mochi takes prompts padded on the right"
        )


class MochiBackbone(TransformerBackbone):
    """Watches a `MochiTransformer3DModel`.

    `timestep` is the noise level in 0..1000, 0 for clean latents and 1000 for pure noise. The model
    counts the other way round and is given 1000 - timestep. LoRA sits on the video's part of the
    attention; the text has projections of its own, `add_q_proj` and so on.
    """

    family = "MochiTransformer3DModel"
    deciding = (
        *("activation_fn", "attention_head_dim", "max_sequence_length", "num_attention_heads"),
        *("patch_size", "qk_norm"),
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

    def text_inputs(
        self, text: TextCondition | None, batch: int, like: Tensor
    ) -> tuple[Float[Tensor, "batch words text_dim"], Bool[Tensor, "batch words"]]:
        """Prompt embeddings for the batch and their mask.

        Without text they are zeros with no valid token: that is what Mochi was trained on as no
        prompt, and its attention is finite there, as the video still attends to itself.

        Raises:
            ValueError: on another batch size or width, a pooled embedding, or padding in front.
        """
        dim = self.config.text_embed_dim
        if text is None:
            shape = (batch, self.config.max_sequence_length)
            nothing = torch.zeros(shape, dtype=torch.bool, device=like.device)
            return like.new_zeros(*shape, dim), nothing
        if text.pooled is not None:
            raise ValueError("Mochi pools the text itself: leave `pooled` out")
        words = text.embeds.shape[1]
        if tuple(text.embeds.shape) != (batch, words, dim):
            raise ValueError(
                f"expected text embeddings ({batch}, words, {dim}), got {tuple(text.embeds.shape)}"
            )
        if text.mask is None:
            everything = torch.ones((batch, words), dtype=torch.bool, device=like.device)
            return text.embeds.to(like), everything
        if tuple(text.mask.shape) != (batch, words):
            raise ValueError(f"expected a mask {(batch, words)}, got {tuple(text.mask.shape)}")
        check_prefix(text.mask)
        return text.embeds.to(like), text.mask.to(like.device)

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`."""
        embeds, mask = self.text_inputs(text, len(latents), latents)
        return {
            "hidden_states": latents.transpose(1, 2),
            "encoder_hidden_states": embeds,
            "timestep": latents.new_full((len(latents),), CLEAN_TIMESTEP - timestep),
            "encoder_attention_mask": mask,
        }

    def as_latents(self, output: Tensor, shape: torch.Size) -> Tensor:
        """See `Backbone.as_latents`; the model predicts clean minus noise, the others' negative."""
        return -super().as_latents(output, shape)
