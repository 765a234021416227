"""Two perturbations beyond the paper's five: latents that lose detail in space, or run together.

Generators fail so more often than by the paper's perturbations, and an energy that has only seen
those does not mind it. Both have a strength that is drawn for every clip, so that negatives are
graded; conventions are those of `gtsvj_reward.perturbations.operations`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.perturbations.operations import Perturbation, check_perturbable


def latent_blur(
    latents: Float[Tensor, "batch time channels height width"],
    *,
    generator: torch.Generator,
    radius_range: tuple[float, float] = (0.4, 1.5),
) -> Float[Tensor, "batch time channels height width"]:
    """Blur every frame by a Gaussian, one radius per clip, uniform in `radius_range`.

    Edges are repeated outwards, so that a frame of one value stays as it is.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.
        radius_range: least and greatest σ of the Gaussian, in latents, 0 < least <= greatest.

    Raises:
        ValueError: bad `radius_range`, clip too short, not five axes, or a generator that is not
            on the CPU.
    """
    check_perturbable(latents, "latent_blur", generator)
    low, high = radius_range
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"`radius_range` must satisfy 0 < least <= greatest, got {radius_range}")
    blurred = []
    for clip in latents:
        radius = low + (high - low) * torch.rand((), generator=generator).item()
        reach = max(1, round(3 * radius))
        offsets = torch.arange(-reach, reach + 1, device=latents.device)
        kernel = (-(offsets**2) / (2 * radius**2)).exp()
        kernel = kernel / kernel.sum()
        frames = clip.flatten(0, 1)[:, None].float()  # (time * channel, 1, height, width)
        padded = F.pad(frames, (reach, reach, reach, reach), mode="replicate")
        across = F.conv2d(padded, kernel[None, None, None])
        both = F.conv2d(across, kernel[None, None, :, None])
        blurred.append(both[:, 0].unflatten(0, clip.shape[:2]))
    return torch.stack(blurred).to(latents.dtype)


def latent_ghosting(
    latents: Float[Tensor, "batch time channels height width"],
    *,
    generator: torch.Generator,
    share_range: tuple[float, float] = (0.2, 0.7),
) -> Float[Tensor, "batch time channels height width"]:
    """Let frames run together: z̃_t = (1 - a) z_t + a z̃_(t-1), from z̃_1 = z_1 on.

    Args:
        latents: clean latents, at least 3 steps.
        generator: CPU generator.
        share_range: least and greatest a, one per clip, 0 < least <= greatest < 1.

    Raises:
        ValueError: bad `share_range`, clip too short, not five axes, or a generator that is not on
            the CPU.
    """
    check_perturbable(latents, "latent_ghosting", generator)
    low, high = share_range
    if not 0 < low <= high < 1:
        raise ValueError(f"`share_range` must satisfy 0 < least <= greatest < 1, got {share_range}")
    draws = torch.rand(len(latents), generator=generator)
    share = (low + (high - low) * draws).to(latents.device)[:, None, None, None]
    shown = [latents[:, 0].float()]
    for frame in latents.float().unbind(dim=1)[1:]:
        shown.append((1 - share) * frame + share * shown[-1])
    return torch.stack(shown, dim=1).to(latents.dtype)


EXTENDED: dict[str, Perturbation] = {
    "latent_blur": latent_blur,
    "latent_ghosting": latent_ghosting,
}
"""Name -> operation, beyond the paper."""
