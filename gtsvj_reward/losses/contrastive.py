"""The discriminator's objective: real clips against perturbed and generated ones."""

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.losses.reduction import Reduction, at_least_float32, check_reduction

Loss = TypeVar("Loss", float, Tensor)


def contrastive_loss(
    positive_energy: Float[Tensor, "batch ..."],
    negative_energy: Float[Tensor, "batch ..."],
    beta: float = 0.2,
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    r"""Regularised contrastive loss of an energy-based model (Eqs. 2-4).

    With E⁺ the energy of the better clip and E⁻ that of the worse,

        L = E⁺ - E⁻ + β (E⁺² + E⁻²)
          = β (E⁺ + 1/(2β))² + β (E⁻ - 1/(2β))² - 1/(2β)

    The second line shows what it is: least-squares classification to ∓1/(2β), bounded below by
    -1/(2β), which `contrastive_bound` returns.

    The paper does not say whether the loss is taken per latent step. Energies of shape (batch,) are
    used as they are: the default, on the time-mean energy. For energies (batch, steps) the loss is
    taken at every step and averaged over the steps of each clip; the two clips of a pair may then
    have different numbers of steps, since no term mixes them. By convexity that is at least the
    loss of the time means; the excess is β times the two variances over time.

    Args:
        positive_energy: E⁺, (batch,) or (batch, steps); lower is better.
        negative_energy: E⁻, likewise.
        beta: β > 0, weight of the squares.
        reduction: `"none"` gives the loss per pair, `"mean"` their mean.

    Returns:
        Loss per pair (batch,), or a scalar; half-precision energies are read in float32.

    Raises:
        ValueError: beta not positive, an unknown reduction, or shapes that do not pair up.
    """
    _require_beta(beta)
    check_reduction(reduction)
    first, second = tuple(positive_energy.shape), tuple(negative_energy.shape)
    if len(first) != len(second) or len(first) not in (1, 2) or first[0] != second[0]:
        raise ValueError(
            "expected two energies (batch,), or two (batch, steps), with the same batch; "
            f"got shapes {first} and {second}"
        )
    positive, negative = at_least_float32(positive_energy), at_least_float32(negative_energy)
    loss = _time_mean(positive + beta * positive**2) + _time_mean(beta * negative**2 - negative)
    return loss.mean() if reduction == "mean" else loss


def contrastive_bound(beta: float = 0.2) -> float:
    """Least value of `contrastive_loss`, -1/(2β), reached at E⁺ = -1/(2β) and E⁻ = 1/(2β).

    Raises:
        ValueError: beta not positive.
    """
    _require_beta(beta)
    return -1 / (2 * beta)


def bound_share(loss: Loss, beta: float = 0.2) -> Loss:
    """Share of its bound that a contrastive loss has reached.

    1 at the bound (saturated: nothing is left to learn from these negatives), 0 for a judge that
    gives every clip energy 0, negative for one that ranks the wrong way round.

    Args:
        loss: value or values of `contrastive_loss`.
        beta: β > 0 of that loss.

    Raises:
        ValueError: beta not positive.
    """
    return loss / contrastive_bound(beta)


def _require_beta(beta: float) -> None:
    if not 0 < beta < float("inf"):
        raise ValueError(
            f"`beta` must be positive and finite, got {beta}: it keeps the loss bounded below"
        )


def _time_mean(values: Tensor) -> Tensor:
    return values.mean(dim=1) if values.ndim == 2 else values
