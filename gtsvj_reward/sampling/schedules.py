"""Noise levels of each family of pipelines, set as its own call sets them."""

from typing import Any

import numpy as np


def plain_timesteps(scheduler: Any, steps: int, positions: int) -> None:
    """The scheduler's own levels."""
    del positions
    scheduler.set_timesteps(steps)


def hunyuan_video_timesteps(scheduler: Any, steps: int, positions: int) -> None:
    """Levels of equal distance, from 1 on, before the scheduler's shift."""
    del positions
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])


def mochi_timesteps(scheduler: Any, steps: int, positions: int) -> None:
    """Levels in two parts; a single step, which the pipeline itself cannot make, goes all the way.

    Args:
        scheduler: whose levels count what is clean.
        steps: denoising steps.
        positions: of no account.
    """
    from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

    del positions
    # The threshold stands inside `MochiPipeline.__call__`.
    levels = linear_quadratic_schedule(steps, 0.025) if steps > 1 else [1.0]
    scheduler.set_timesteps(sigmas=np.array(levels))


def ltx_timesteps(scheduler: Any, steps: int, positions: int) -> None:
    """Levels whose shift follows from the size of the clip.

    Args:
        scheduler: with the settings of that shift.
        steps: denoising steps.
        positions: latents of a clip over time, height and width.
    """
    from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift

    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    shift = calculate_shift(positions, *(scheduler.config[name] for name in names))
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
