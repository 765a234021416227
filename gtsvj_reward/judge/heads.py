"""Heads: from hidden tokens to energies and aspects."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

TokenPooling = Literal["mean", "attention"]
TimePooling = Literal["mean", "mean_std"]


def float32_region(tensor: Tensor) -> torch.autocast:
    """Mixed precision is for the backbone: heads leave it."""
    return torch.autocast("cpu" if tensor.is_meta else tensor.device.type, enabled=False)


class StepFeatures(nn.Module):
    """Features of each step: LayerNorm, one hidden layer per token, pooled over the tokens.

    Args:
        dim: width of a token.
        width: hidden units.
        pooling: `mean` of the tokens, or `attention`: a mean with weights from one learned query,
            which starts as the plain mean.
    """

    def __init__(self, dim: int, width: int, pooling: TokenPooling = "mean") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, width)
        self.activation = nn.GELU()
        self.query = zero_linear(width, 1) if pooling == "attention" else None

    def features(
        self, tokens: Float[Tensor, "batch step tokens dim"]
    ) -> Float[Tensor, "batch step width"]:
        """Features, in the dtype of the head."""
        tokens = tokens.to(self.norm.weight.dtype)
        hidden: Tensor = self.activation(self.hidden(self.norm(tokens)))
        if self.query is None:
            return hidden.mean(dim=2)
        shares: Tensor = self.query(hidden).softmax(dim=2)
        return (shares * hidden).sum(dim=2)


class EnergyHead(StepFeatures):
    """Energy of each step.

    The paper has "a lightweight MLP head to aggregate the spatiotemporal features into a single
    scalar representation per latent time step" (section 4.1). It runs in float32.
    """

    def __init__(self, dim: int, width: int, pooling: TokenPooling = "mean") -> None:
        super().__init__(dim, width, pooling)
        self.energy = nn.Linear(width, 1)

    def forward(
        self, tokens: Float[Tensor, "batch step tokens dim"]
    ) -> Float[Tensor, "batch step"]:
        """Energies, without bound; low is good."""
        with float32_region(tokens):
            energy: Tensor = self.energy(self.features(tokens))
        return energy.squeeze(2)


class AspectHead(StepFeatures):
    """Aspect scores of each step; the score of a clip is their mean over time (section 4.2).

    Scores are range-normalised: 0 and 1 are the ends of the aspect's scale. They are not clipped.

    Args:
        dim: width of a token.
        width: hidden units.
        count: aspects.
        pooling: over the tokens of a step.
        time_pooling: `mean`: a step's scores depend on its own features, the paper's plain version;
            `mean_std` adds a term from the standard deviation of the features over time, the same
            at every step, so that the mean over time still is the score of the clip.
        energy: a trained energy head, whose energies are then inputs as well. Its weights are never
            trained. None: no such input.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        count: int,
        *,
        pooling: TokenPooling = "mean",
        time_pooling: TimePooling = "mean",
        energy: EnergyHead | None = None,
    ) -> None:
        super().__init__(dim, width, pooling)
        self.aspects = nn.Linear(width, count)
        nn.init.constant_(self.aspects.bias, 0.5)  # the middle of every scale
        self.energy_head = energy
        self.from_energy = None if energy is None else zero_linear(1, count)
        inputs = width if energy is None else width + 1
        self.spread = zero_linear(inputs, count) if time_pooling == "mean_std" else None

    def forward(
        self, tokens: Float[Tensor, "batch step tokens dim"]
    ) -> Float[Tensor, "batch step aspect"]:
        """Range-normalised aspect scores of each step; high is good."""
        with float32_region(tokens):
            features = self.features(tokens)
            scores: Tensor = self.aspects(features)
            if self.energy_head is not None and self.from_energy is not None:
                energy = self.energy_head(tokens).unsqueeze(2)
                scores = scores + self.from_energy(energy)
                features = torch.cat([features, energy], dim=2)
            if self.spread is not None:
                # Of the population, and with a floor: the gradient of a square root is infinite
                # at 0, where a clip of equal steps or of a single one would be.
                deviation = (features.var(dim=1, correction=0) + 1e-6).sqrt()
                scores = scores + self.spread(deviation).unsqueeze(1)
        return scores


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer without bias that starts as nothing."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
