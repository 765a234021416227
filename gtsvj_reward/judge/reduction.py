"""Fewer latents than a clip has: what a cheaper judge hands to its backbone."""

import torch
from jaxtyping import Float
from torch import Tensor


def check_reducible(
    size: tuple[int, int, int], *, latent_pooling: int, temporal_stride: int, patch_size: int
) -> None:
    """Refuse clips of which too little would be left.

    Args:
        size: latent frames, height and width of the clip.
        latent_pooling: edge of the squares of latents that are averaged.
        temporal_stride: every so many latent frames one is kept.
        patch_size: edge of the transformer's patches, in latents after pooling.

    Raises:
        ValueError: for a clip without a whole patch, or of which a single frame would be left.
    """
    time, height, width = size
    if temporal_stride > 1 and time <= temporal_stride:
        raise ValueError(
            f"a clip of {time} latent frames is too short for this judge, which looks at one "
            f"in {temporal_stride} (`temporal_stride`): at least {temporal_stride + 1} are needed"
        )
    edge = latent_pooling * patch_size
    if latent_pooling > 1 and min(height, width) < edge:
        raise ValueError(
            f"latents of {height}x{width} are too small for this judge, which averages squares of "
            f"{latent_pooling} (`latent_pooling`) and cuts patches of {patch_size}: at least "
            f"{edge}x{edge} are needed"
        )


def reduce_latents(
    latents: Tensor,
    *,
    latent_pooling: int,
    temporal_stride: int,
    patch_size: int,
) -> Float[Tensor, "batch kept channel rows columns"]:
    """Every `temporal_stride`-th latent frame from the first on, averaged over squares of latents.

    Where height or width is not a multiple of `latent_pooling * patch_size`, the remainder is cut
    off, half of it at either side (the larger half at the bottom and right). With
    `latent_pooling` 1 nothing is cut.

    Args:
        latents: (batch, time, channel, height, width).
        latent_pooling: edge of the squares.
        temporal_stride: every so many latent frames one is kept.
        patch_size: edge of the transformer's patches, in latents after pooling.

    Raises:
        ValueError: for another number of axes, or a clip that is too short or too small.
    """
    if latent_pooling == temporal_stride == 1:
        return latents
    if latents.ndim != 5:
        raise ValueError(
            "expected latents (batch, time, channel, height, width), got shape "
            f"{tuple(latents.shape)}"
        )
    batch, time, _, height, width = latents.shape
    check_reducible(
        (time, height, width),
        latent_pooling=latent_pooling,
        temporal_stride=temporal_stride,
        patch_size=patch_size,
    )
    kept = latents[:, ::temporal_stride]
    if latent_pooling == 1:
        return kept
    edge = latent_pooling * patch_size
    rows, columns = height - height % edge, width - width % edge
    top, left = (height - rows) // 2, (width - columns) // 2
    whole = kept[..., top : top + rows, left : left + columns]
    means = torch.nn.functional.avg_pool2d(whole.flatten(0, 1), latent_pooling)
    pooled: Tensor = means.unflatten(0, (batch, -1))
    return pooled
