"""What the tests need to know of a family of transformers."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family, or one kind of model in it."""

    name: str
    transformer: Callable[[int], nn.Module]
    """Seed -> a tiny diffusers model with weights large enough to matter, in evaluation mode."""
    space: LatentSpace
    """A tiny latent space that it works in."""
    sizes: tuple[tuple[int, int, int], ...]
    """Latent time, height and width of clips to try; the first is used where one will do."""
    depths: tuple[int, ...]
    """Depths to try; the last is that of the whole model."""
    tokens: Callable[[tuple[int, int, int]], tuple[int, int]]
    """Size -> steps, and tokens of a step."""
    text: Callable[[int], TextCondition]
    """Batch size -> text that differs between samples."""
    null_text: Callable[[int], TextCondition]
    """Batch size -> the null condition written out."""
    hidden: Callable[[nn.Module, Tensor, int, float, TextCondition], Tensor]
    """Model, BTCHW latents, depth, timestep, text -> (batch, step * token, dim) that a hook on the
    unmodified model sees leave block depth - 1, called as its pipeline calls it."""
    lora_targets: Callable[[int], tuple[str, ...]]
    """Index of a block -> names of its adapted layers, below the block."""
    block: Callable[[int], str]
    """Index of a block -> its name in the diffusers model."""
