"""Direct preference optimisation of a diffusion model."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.losses.reduction import at_least_float32


class DPOLoss(NamedTuple):
    """The loss of each pair, and what is worth logging of it."""

    loss: Float[Tensor, " pair"]
    """In nats; log 2 for a model that equals its reference."""
    margin: Float[Tensor, " pair"]
    """Gain of the chosen clip over the reference, minus that of the other; no gradient."""


def diffusion_dpo_loss(
    chosen_error: Float[Tensor, " pair"],
    rejected_error: Float[Tensor, " pair"],
    reference_chosen_error: Float[Tensor, " pair"],
    reference_rejected_error: Float[Tensor, " pair"],
    beta: float,
) -> DPOLoss:
    """Diffusion-DPO (Wallace et al. 2024, Eq. 14) from errors of denoising.

    With errors e, all at one timestep and with one noise for both clips of a pair,

        margin = (e_ref(chosen) - e(chosen)) - (e_ref(rejected) - e(rejected))
        L      = -log σ(β/2 margin)

    Errors are means of squares over a clip's elements, so that β (the published runs take 2,000 to
    5,000) does not depend on the clip's size.

    Args:
        chosen_error: e of the clip that was preferred, differentiable.
        rejected_error: e of the other one, differentiable.
        reference_chosen_error: the same under the reference; no gradient flows.
        reference_rejected_error: likewise.
        beta: β > 0, the strength with which the model is held to its reference.

    Raises:
        ValueError: a β that is not positive, or shapes that differ.
    """
    if not beta > 0:
        raise ValueError(f"`beta` must be positive, got {beta}")
    given = (chosen_error, rejected_error, reference_chosen_error, reference_rejected_error)
    if len({error.shape for error in given}) > 1:
        shapes = ", ".join(str(tuple(error.shape)) for error in given)
        raise ValueError(f"expected four errors per pair, got shapes {shapes}")
    chosen, rejected, old_chosen, old_rejected = (at_least_float32(error) for error in given)
    margin = (old_chosen.detach() - chosen) - (old_rejected.detach() - rejected)
    return DPOLoss(-F.logsigmoid(beta / 2 * margin), margin.detach())


def denoising_error(
    output: Float[Tensor, "clip time channel height width"],
    target: Float[Tensor, "clip time channel height width"],
) -> Float[Tensor, " clip"]:
    """Mean square of a model's error per clip, in float32."""
    squares: Tensor = (at_least_float32(output) - at_least_float32(target)).square()
    return torch.mean(squares.flatten(1), dim=1)
