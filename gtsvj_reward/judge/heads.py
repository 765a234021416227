"""What turns hidden tokens into numbers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EnergyHead(nn.Module):
    """Energy of each step: LayerNorm, one hidden layer per token, mean over the tokens, linear.

    The paper has "a lightweight MLP head to aggregate the spatiotemporal features into a single
    scalar representation per latent time step" (section 4.1). It runs in float32.

    Args:
        dim: width of a token.
        width: hidden units.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, width)
        self.activation = nn.GELU()
        self.energy = nn.Linear(width, 1)

    def forward(
        self, tokens: Float[Tensor, "batch step tokens dim"]
    ) -> Float[Tensor, "batch step"]:
        """Energies, without bound; low is good."""
        device = "cpu" if tokens.is_meta else tokens.device.type
        with torch.autocast(device, enabled=False):  # mixed precision is for the backbone
            tokens = tokens.to(self.norm.weight.dtype)
            hidden = self.activation(self.hidden(self.norm(tokens)))
            energy: Tensor = self.energy(hidden.mean(dim=2))
        return energy.squeeze(2)
