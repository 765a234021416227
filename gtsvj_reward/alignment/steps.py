"""Selects the denoising steps that are stochastic, and those to train on."""

from collections.abc import Sequence

import torch

from gtsvj_reward.random_keys import keyed_generator

SUBSET = 8
"""Second number of the key of the steps of an iteration."""


def window(iteration: int, steps: int, width: int) -> range:
    """The steps that are stochastic in an iteration, as in MixGRPO (Li et al. 2025).

    The window has `width` successive steps. It starts at the noisiest step, moves by one step each
    iteration, and restarts after it has reached the last step but one; the last step is never
    stochastic. Steps outside the window are deterministic and not trained on.

    Args:
        iteration: from 0.
        steps: of a sample.
        width: of the window; 0: all steps.

    Raises:
        ValueError: for a width that does not fit the schedule.
    """
    check_window(steps, width)
    if width == 0:
        return range(steps)
    first = iteration % (steps - width)
    return range(first, first + width)


def check_window(steps: int, width: int) -> None:
    """Reject a window wider than the steps that can be stochastic."""
    if not 0 <= width < steps:
        raise ValueError(
            f"`window` must be 0 (all) to {steps - 1}, one less than `num_inference_steps`, since "
            f"the last step ends without noise; got {width}"
        )


def trained_steps(steps: Sequence[int], fraction: float, *key: int) -> list[int]:
    """A share of the stochastic steps, drawn by a key, in order; at least one.

    DanceGRPO (Xue et al. 2025) trains on a random 60% of them, since each step costs a pass with
    gradients.

    Args:
        steps: steps that have a density.
        fraction: share of them, 0 < fraction <= 1.
        *key: seeds of the draw.
    """
    count = max(1, round(fraction * len(steps)))
    order = torch.randperm(len(steps), generator=keyed_generator(*key)).tolist()
    return sorted(steps[place] for place in order[:count])
