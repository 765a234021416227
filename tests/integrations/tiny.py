"""Videos that adapters are given."""

import textwrap

import torch

ROUNDING = 5e-5
"""How far a score may move with the shape of the batch that it is computed in."""


def videos(batch=2, time=9, seed=0):
    """Noise with colours in [0, 1], (batch, time, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, 3, 64, 96, generator=generator)


def example_of(thing):
    """The code of a docstring's example."""
    fenced = thing.__doc__.split("Example:\n")[1].split("```python\n")[1]
    return textwrap.dedent(fenced.split("```")[0])
