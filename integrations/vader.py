"""VADER: a `loss_fn` of decoded videos, differentiated through decoder and reward.

Written against mihirp1998/VADER (`VADER-VideoCrafter/scripts/main/train_t2v_lora.py`), whose
losses return (loss, mean reward), both scalars with a graph. Nothing here imports it.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gtsvj_reward.losses.reward_gradient import check_objective, reward_loss
from gtsvj_reward.reward.clip_scorer import ClipScorer

LossFn = Callable[..., tuple[Tensor, Tensor]]
"""(frames, prompts) -> (loss, mean reward)."""

OVERSHOOT = 0.5
"""How far a decoder may leave [-1, 1]; more means that the frames are on another scale."""


def vader_loss_fn(scorer: ClipScorer, *, target: float | None = None, scale: float = 1.0) -> LossFn:
    """Make the function that VADER calls once per step.

    VADER's generators use image VAEs, whose latents no judge can score. VADER decodes all frames
    with a graph, and the scorer's VAE encodes them again.

    Example:
        ```python
        scorer = ClipScorer(reward, vae=vae, fps=8.0, first_frames=13)
        loss_fn = vader_loss_fn(scorer, scale=0.1)
        loss, rewards = loss_fn(frames, prompts)
        ```

    Args:
        scorer: one with a VAE.
        target: see `reward_loss`; None, the default, is without bound.
        scale: see `reward_loss`.

    Raises:
        ValueError: for a scorer without a VAE, and for a target or scale that trains nothing.
    """
    if scorer.vae is None:
        raise ValueError("VADER hands over decoded videos: give `ClipScorer` the judge's `vae`")
    check_objective(target, scale)

    def loss_fn(frames: Tensor, prompts: Any = None) -> tuple[Tensor, Tensor]:
        rewards = scorer.score_frames(unit_frames(frames), prompts=prompts).rewards
        return reward_loss(rewards, target, scale, "mean"), rewards.mean()

    return loss_fn


def unit_frames(frames: Tensor) -> Tensor:
    """VADER's videos (batch, time, 3, height, width), with colours in [0, 1].

    Decoders overshoot, so values are clipped as VADER's own rewards do; gradients stop there.

    Raises:
        ValueError: for single frames, and for values that are not around [-1, 1], or NaN.
    """
    shape = tuple(frames.shape)
    if frames.ndim != 5:
        raise ValueError(
            f"expected videos (batch, time, 3, height, width), got shape {shape}: VADER hands over "
            'one frame of each unless --reward_fn is "vidclip" and --decode_frame "all" or "alt"'
        )
    furthest = frames.detach().abs().max().item()
    if not furthest <= 1 + OVERSHOOT:
        raise ValueError(
            f"expected colours in [-1, 1], as decoders give them, got values up to {furthest:.4g}: "
            "pass the decoder's output unchanged"
        )
    return (frames / 2 + 0.5).clamp(0, 1)
