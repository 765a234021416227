"""Rejections of tensors that cannot be latents of a given space, or frames that its VAE encodes."""

import torch
from torch import Tensor


class LatentSpaceError(ValueError):
    """Latents, or a VAE, that do not belong to the latent space in use."""


FRAMES_HINT = (
    "; if the 3 are colours, these are decoded frames: pass the latents of "
    'output_type="latent", or score pixels with `score_frames`'
)


def is_frames(shape: tuple[int, ...], channels: int) -> bool:
    """Whether a tensor has an axis that may be of three colours, and none of the channels."""
    leading = shape[-4:-2]
    return len(shape) in (4, 5) and channels not in leading and 3 in (*leading, shape[-1])


def check_layout(latents: Tensor, channels: int, layout: str) -> None:
    """Reject a tensor that is not of rank 5 with the channels on the axis that `layout` names.

    Args:
        latents: any tensor.
        channels: number of latent channels.
        layout: "BTCHW" or "BCTHW".

    Raises:
        LatentSpaceError: with the call that swaps the axes if they look swapped.
    """
    shape = tuple(latents.shape)
    if latents.ndim != 5:
        hint = "; a single clip needs a batch axis: `latents[None]`" if latents.ndim == 4 else ""
        hint = FRAMES_HINT if is_frames(shape, channels) else hint
        raise LatentSpaceError(
            f"expected latents of rank 5 in {layout!r} order, got shape {shape}{hint}"
        )
    axis = layout.index("C")
    if shape[axis] != channels:
        other = "BCTHW" if layout == "BTCHW" else "BTCHW"
        hint = FRAMES_HINT if is_frames(shape, channels) else ""
        if shape[3 - axis] == channels:
            hint = (
                f"; axis {3 - axis} does, so it looks like {other!r}: swap axes 1 and 2, "
                "`latents.transpose(1, 2)`"
            )
        raise LatentSpaceError(
            f"expected {channels} latent channels on axis {axis} ({layout!r} order), "
            f"got shape {shape}{hint}"
        )
    if latents.numel() == 0:
        raise LatentSpaceError(f"expected at least one latent value, got shape {shape}")
    if not latents.is_floating_point():
        raise LatentSpaceError(
            f"expected floating point latents, got {latents.dtype}: "
            "pass what the diffusion model or the VAE returned, not pixels"
        )


def check_values(latents: Tensor, expected_std: tuple[float, float] | None) -> None:
    """Reject NaN, infinity and a standard deviation outside `expected_std`, per batch item.

    One reduction and one copy of a few numbers to the host; a second pass runs only on failure.
    Tensors on the meta device have no values and pass.

    Args:
        latents: `(batch, ...)`, floating point.
        expected_std: accepted range of the overall standard deviation of one batch item; None
            accepts any finite values.

    Raises:
        LatentSpaceError: naming the first offending batch index.
    """
    if latents.is_meta:
        return
    rows = latents.detach().flatten(1).float()
    for index, std in enumerate(rows.std(dim=1, correction=0).tolist()):
        if not std < float("inf") and not torch.isfinite(latents[index]).all():
            raise LatentSpaceError(
                f"latents[{index}] has non-finite values (NaN or infinity): drop this clip, or "
                "find the step that made them (often float16 overflow in the sampler or the VAE)"
            )
        if expected_std is not None and not expected_std[0] <= std <= expected_std[1]:
            low, high = expected_std
            raise LatentSpaceError(
                f"latents[{index}] has standard deviation {std:.4g}, expected {low:g} to {high:g}: "
                "these do not look like scaled latents. Pass the generator's own latents, or the "
                "VAE's output times its scaling factor (`LatentSpace.encode` and "
                "`LatentSpace.scale` do that), not pixels, noise schedules' inputs or raw VAE "
                "output. If the values are right, pass `check_statistics=False`"
            )


def latent_frames(num_frames: int, group: int) -> int:
    """Latent frames of a clip of `num_frames` frames: the first one alone, then groups of `group`.

    Raises:
        ValueError: if `num_frames` is not `group` * f + 1.
    """
    groups, rest = divmod(num_frames - 1, group)
    if num_frames < 1 or rest:
        raise ValueError(
            f"expected {group}f + 1 frames (1, {group + 1}, {2 * group + 1}, ...), got "
            f"{num_frames}: take {max(groups, 0) * group + 1}"
        )
    return groups + 1


def check_size(spatial_compression: int, height: int, width: int) -> None:
    """Reject frame sizes that would make broken latents."""
    if height < 1 or width < 1 or height % spatial_compression or width % spatial_compression:
        raise ValueError(
            f"expected height and width in multiples of {spatial_compression}, "
            f"got {height}x{width}: crop or resize the frames"
        )


def check_range(frames: Tensor) -> None:
    """Reject values outside [0, 1], but for rounding."""
    low, high = (bound.item() for bound in torch.aminmax(frames.detach()))
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"expected frames in [0, 1], got {low:.4g} to {high:.4g}: divide uint8 frames by 255; "
            "frames in [-1, 1] need `(frames + 1) / 2`"
        )
