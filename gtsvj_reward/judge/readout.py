"""The head of a moment judge: linear in standardised moments, with its posterior."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtsvj_reward.judge.heads import float32_region
from gtsvj_reward.judge.moments import MOMENTS
from gtsvj_reward.judge.posterior import WIDTH, Projection, leverage


class MomentReadout(nn.Module):
    """Outputs of each step, linear in the step's moments.

    The mean over the steps of an output is the output at the mean moments, so that a clip's score
    is the mean of its trajectory. There is no adapter and nothing to backpropagate: see
    `gtsvj_reward.training.closed_form`.

    Args:
        widths: features of each tap; see `tap_widths`.
        outputs: the energy, the aspects, or one score.
        energy: keep the energy of the discriminator beside the outputs.
        penalties: of each tap, in the fit that the posterior belongs to; None: no posterior.
        seed: of the posterior's projection.
    """

    mean: Tensor
    deviation: Tensor
    root: Tensor
    noise: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        outputs: int,
        *,
        energy: bool = False,
        penalties: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        features = sum(widths)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.output = zero_readout(features, outputs)
        self.energy = zero_readout(features, 1) if energy else None
        self.projection: Projection | None = None
        if penalties is not None:
            each = torch.tensor(penalties).repeat_interleave(torch.tensor(widths))
            self.projection = Projection(each.rsqrt(), seed=seed)
            inputs = 1 + energy
            self.register_buffer("root", torch.zeros(WIDTH + inputs, WIDTH + inputs))
            self.register_buffer("noise", torch.zeros(outputs, outputs))

    def standardised(self, moments: Float[Tensor, "... feature"]) -> Float[Tensor, "... feature"]:
        """Moments in deviations from those of the clips that the judge was fitted to."""
        return (moments.to(self.mean.dtype) - self.mean) / self.deviation

    def forward(
        self, moments: Float[Tensor, "batch step feature"]
    ) -> Float[Tensor, "batch step output"]:
        """Outputs of each step: the energy (low is good), range-normalised aspects, or a score."""
        with float32_region(moments):
            out: Tensor = self.output(self.standardised(moments))
        return out

    def noise_of(self, weights: Sequence[float]) -> float | None:
        """Noise variance of a weighted sum of the outputs; None if it is not known."""
        if self.projection is None:
            return None
        each = self.noise.new_tensor(weights)
        return (each @ self.noise @ each).item()

    def leverage(
        self, moments: Float[Tensor, "batch step feature"]
    ) -> Float[Tensor, " batch"] | None:
        """Posterior variance of a clip's outputs as a multiple of their noise; None if unknown."""
        if self.projection is None:
            return None
        with float32_region(moments):
            features = self.standardised(moments.mean(dim=1))
            inputs = features.new_ones(len(features), 1)
            if self.energy is not None:
                inputs = torch.cat([inputs, self.energy(features)], dim=1)
            return leverage(self.root, self.projection(features), inputs)


def zero_readout(features: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as nothing, without drawing random numbers."""
    with torch.device("meta"):
        layer = nn.Linear(features, outputs)
    layer.weight = nn.Parameter(torch.zeros(outputs, features))
    layer.bias = nn.Parameter(torch.zeros(outputs))
    return layer


def tap_widths(taps: Sequence[int], latent_channels: int, dim: int) -> tuple[int, ...]:
    """Features of each tap: seven moments of each channel of the latents or of the tokens."""
    return tuple(len(MOMENTS) * (dim if tap else latent_channels) for tap in taps)
