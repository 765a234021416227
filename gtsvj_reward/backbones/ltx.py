"""LTX-Video: rotary positions in seconds and pixels."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones.text import TextCondition
from gtsvj_reward.backbones.transformer import TransformerBackbone

TEMPORAL_COMPRESSION = 8
"""Frames per latent after the first one, of every LTX VAE; not in the transformer's config."""

SPATIAL_COMPRESSION = 32
"""Pixels per latent in height and width, of every LTX VAE."""

DEFAULT_FPS = 25.0
"""Frame rate that LTX pipelines assume by default."""


def coordinates(
    grid: tuple[int, int, int], fps: float, causal_time: bool, device: torch.device
) -> Float[Tensor, "1 axis token"]:
    """Where the latents of a clip stand: seconds, row and column in pixels.

    Args:
        grid: latent frames, height and width of the clip.
        fps: frames per second of the video.
        causal_time: where latent k stands in time; see `LTXBackbone`.
        device: where the tensor is made.
    """
    frames, rows, columns = (torch.arange(size, device=device).float() for size in grid)
    if causal_time:
        first_frames = (frames * TEMPORAL_COMPRESSION + 1 - TEMPORAL_COMPRESSION).clamp(min=0)
        seconds = first_frames * (1.0 / fps)
    else:
        seconds = frames * (TEMPORAL_COMPRESSION / fps)
    axes = (seconds, rows * SPATIAL_COMPRESSION, columns * SPATIAL_COMPRESSION)
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)[None]


def words_and_bias(
    text: TextCondition | None, batch: int, like: Tensor, width: int, model: str
) -> tuple[Float[Tensor, "batch words text_dim"], Float[Tensor, "batch 1 words"]]:
    """Prompt embeddings, and what is added to the attention to each word (0 or -10000).

    Without text it is one word of zeros: any number of equal words attracts the same mixture.

    Args:
        text: what a prompt's encoder said.
        batch: number of clips.
        like: has the dtype and device of the result.
        width: of the embeddings that the model takes.
        model: what messages call it.

    Raises:
        ValueError: on another batch size or width, a pooled projection, or a text without a valid
            word, which the model would attend to as if all words were valid.
    """
    if text is None:
        return like.new_zeros(batch, 1, width), like.new_zeros(batch, 1, 1)
    if text.pooled is not None:
        raise ValueError(f"{model} takes no pooled text: give `embeds` and `mask` alone")
    words, mask = text.embeds.shape[1], text.mask
    if mask is None:
        mask = torch.ones(batch, words, dtype=torch.bool, device=like.device)
    got = (tuple(text.embeds.shape), tuple(mask.shape))
    expected = ((batch, words, width), (batch, words))
    if got != expected or words == 0:
        raise ValueError(
            f"expected text embeddings {expected[0]} and a mask {expected[1]} of at least one "
            f"word, got {got[0]} and {got[1]}"
        )
    valid = mask.any(dim=1)
    if not valid.is_meta and not valid.all():
        raise ValueError(
            f"{int((~valid).sum())} of {batch} text masks have no valid word, the first is "
            f"number {valid.tolist().index(False)}: pass no text for the null condition"
        )
    bias = (1 - mask.to(like)) * -10000.0
    return text.embeds.to(like), bias.unsqueeze(1)


class LTXBackbone(TransformerBackbone):
    """Watches an `LTXVideoTransformer3DModel`.

    `timestep` runs from 0 (clean) to 1000 (noise), as the pipeline's scheduler gives it.

    Positions are seconds and pixels, so that the frame rate of a clip changes its hidden states.
    Latent k stands at 8k / fps seconds in `LTXPipeline` (0.9.0, 0.9.1), and at the first of its
    frames, max(0, 8k - 7) / fps, in `LTXConditionPipeline` (0.9.5 and later). The model's config
    does not say which one it was trained for. Both choices are part of the fingerprint.

    LoRA leaves the attention to the text alone: with the null condition it adds a constant.

    Args:
        transformer: the diffusers model; it is left as it is, its weights are shared, not copied.
        depth: blocks to use, all of them by default.
        live: follow the transformer; see `TransformerBackbone`.
        fps: frame rate of the clips, in frames per second.
        causal_time: True for the positions of `LTXConditionPipeline`.

    Raises:
        ValueError: for a model that joins latents into patches, which no LTX pipeline can feed.
    """

    family = "LTXVideoTransformer3DModel"
    title = "LTX"
    deciding: tuple[str, ...] = (
        *("activation_fn", "attention_head_dim", "norm_eps", "num_attention_heads", "qk_norm"),
    )
    patch_size = 1
    output_parts: tuple[str, ...] = ("norm_out", "proj_out", "scale_shift_table")

    def __init__(
        self,
        transformer: Any,
        depth: int | None = None,
        *,
        live: bool = False,
        fps: float = DEFAULT_FPS,
        causal_time: bool = False,
    ) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"`fps` must be positive frames per second, got {fps}")
        self.fps, self.causal_time = float(fps), causal_time
        super().__init__(transformer, depth, live=live)

    def configure(self, config: Any) -> None:
        """See `TransformerBackbone.configure`."""
        if (config.patch_size, config.patch_size_t) != (1, 1):
            raise ValueError(
                f"expected an {self.title} transformer whose tokens are single latents, got "
                f"`patch_size` {config.patch_size} and `patch_size_t` {config.patch_size_t}: its "
                "pipelines cannot pack latents for it"
            )
        super().configure(config)

    def decisions(self, config: Any) -> dict[str, Any]:
        """See `TransformerBackbone.decisions`."""
        positions = {"fps": self.fps, "causal_time": self.causal_time}
        return {**super().decisions(config), **positions}

    def inputs(
        self, latents: Tensor, *, timestep: float, text: TextCondition | None
    ) -> dict[str, Any]:
        """See `Backbone.inputs`. One table of positions serves all clips of a batch."""
        batch, steps, _, height, width = latents.shape
        words, bias = words_and_bias(
            text, batch, latents, self.config.caption_channels, model=self.title
        )
        return {
            "hidden_states": latents.movedim(2, -1).flatten(1, 3),
            "encoder_hidden_states": words,
            "timestep": torch.full((batch,), timestep, device=latents.device),
            "encoder_attention_mask": bias,
            "video_coords": coordinates(
                (steps, height, width), self.fps, self.causal_time, latents.device
            ),
        }

    def as_latents(self, output: Tensor, shape: torch.Size) -> Tensor:
        """See `Backbone.as_latents`; tokens are single latents."""
        _, steps, _, height, width = shape
        latents: Tensor = output.unflatten(1, (steps, height, width)).movedim(-1, 2)
        return latents
