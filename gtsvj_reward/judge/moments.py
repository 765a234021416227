"""Moments of hidden tokens: what the moment readout reads of a clip.

The paper's head averages tokens, a first moment. Faults of video show in second moments and in
differences, so each tap gives seven moments per step. A clip's features are the mean over its
steps; a readout that is linear in them has a trajectory whose mean is exactly the clip's score.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.judge.heads import float32_region

MOMENTS = (
    "mean",
    "deviation",
    "from_clip",
    "first_difference",
    "second_difference",
    "right",
    "below",
)
"""The moments of a tap, in the order of its features; see `step_moments`."""

LEAST_STEPS = 3
"""Steps that a clip must have: a second difference needs three."""

SMOOTHNESS = 1e-3
"""|d| is sqrt(d^2 + SMOOTHNESS^2), which has a gradient everywhere. Tokens are normalised and
latents scaled to about 1, so this is a thousandth of what a tap usually holds."""


CHANNELS_AT_ONCE = 192
"""Channels whose moments are computed together: all of 1,920 hold ten copies of a block's tokens in
float32, which a backward pass would add to its peak. With 192 the peak is the block's own."""


def default_taps(depth: int) -> list[int]:
    """The latents (0) and three blocks spread over the depth; fewer where it has fewer."""
    return [0, *sorted({max(1, round(depth * third / 3)) for third in (1, 2, 3)})]


def check_taps(taps: Sequence[int], depth: int) -> list[int]:
    """Taps as a list.

    Raises:
        ValueError: for no tap, one that is not in 0..depth, or taps that do not rise.
    """
    if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or taps[-1] > depth:
        raise ValueError(
            f"`taps` must rise within 0 (the latents) to {depth} (the last block in use), "
            f"got {list(taps)}"
        )
    return list(taps)


def check_steps(size: tuple[int, int, int], steps: int, edge: int) -> None:
    """Refuse clips that have too few steps or tokens for moments.

    Args:
        size: latent frames, height and width of a clip.
        steps: that the judge sees of it.
        edge: of the squares of latents that make a token.

    Raises:
        ValueError: naming the size and what is needed.
    """
    frames, height, width = size
    if steps < LEAST_STEPS:
        raise ValueError(
            f"a clip of {frames} latent frames is too short for this judge: it reads {steps} "
            f"steps of it, and moments need {LEAST_STEPS}"
        )
    if min(height, width) < 2 * edge:
        raise ValueError(
            f"latents of {height}x{width} are too small for this judge: it reads "
            f"{height // edge}x{width // edge} tokens, and moments need 2x2"
        )


def magnitude(difference: Tensor) -> Tensor:
    """Smooth absolute value, sqrt(d^2 + SMOOTHNESS^2)."""
    return (difference.square() + SMOOTHNESS**2).sqrt()


def shared_by_steps(
    values: Float[Tensor, "batch links dim"], steps: int
) -> Float[Tensor, "batch step dim"]:
    """Per step, the mean of the differences that touch it.

    A difference of order k links k + 1 neighbouring steps. The steps at both ends are touched by
    fewer, never by none.

    Args:
        values: of the differences, in order; `steps - k` of them.
        steps: of the clip.
    """
    links = values.shape[1]
    step, link = torch.arange(steps), torch.arange(links)
    offset = step[:, None] - link[None]  # (step, link)
    touches = ((offset >= 0) & (offset <= steps - links)).to(values)
    return torch.einsum("sl,bld->bsd", touches / touches.sum(dim=1, keepdim=True), values)


def step_moments(
    tokens: Float[Tensor, "batch step row column dim"],
) -> Float[Tensor, "batch step feature"]:
    """Seven moments of each channel at each step, in the order of `MOMENTS`.

    With x the tokens of a step and the mean taken over its tokens: mean x; the standard deviation
    of x; |mean x - its mean over the clip|; |x_s - x_(s-1)| and |x_(s+1) - 2 x_s + x_(s-1)|, each
    step having the mean of the differences that touch it; |x - its right neighbour|;
    |x - its neighbour below|. Absolute values are smooth (`SMOOTHNESS`).

    Raises:
        ValueError: for fewer than three steps, or fewer than two rows or columns.
    """
    _, steps, rows, columns, _ = tokens.shape
    if steps < LEAST_STEPS or min(rows, columns) < 2:
        raise ValueError(
            f"moments need at least {LEAST_STEPS} steps of 2x2 tokens, this clip has {steps} of "
            f"{rows}x{columns}: give a longer or larger one, or a judge that pools less"
        )
    within = (2, 3)
    mean = tokens.mean(dim=within)
    variance = tokens.var(dim=within, correction=0)
    first, second = tokens.diff(dim=1), tokens.diff(dim=1, n=2)
    return torch.cat(
        [
            mean,
            (variance + SMOOTHNESS**2).sqrt(),
            magnitude(mean - mean.mean(dim=1, keepdim=True)),
            shared_by_steps(magnitude(first).mean(dim=within), steps),
            shared_by_steps(magnitude(second).mean(dim=within), steps),
            magnitude(tokens.diff(dim=3)).mean(dim=within),
            magnitude(tokens.diff(dim=2)).mean(dim=within),
        ],
        dim=2,
    )


def block_moments(
    tokens: Float[Tensor, "batch step tokens dim"], rows: int, columns: int
) -> Float[Tensor, "batch step feature"]:
    """Moments of the tokens that leave a block, after a LayerNorm without weights.

    They are computed in float32, or in float64 for tokens of that type, some channels at a time.
    Where gradients are recorded they are computed again in the backward pass, so that no difference
    is stored, and those of some channels alone are held at once.

    Args:
        tokens: of a block, the tokens of a step row by row.
        rows: rows of tokens in a step.
        columns: tokens in a row.
    """

    def moments(values: Tensor) -> Tensor:
        values = values if values.dtype == torch.float64 else values.float()
        normed = F.layer_norm(values, values.shape[-1:]).unflatten(2, (rows, columns))
        parts = [recomputed(step_moments, part) for part in normed.split(CHANNELS_AT_ONCE, dim=4)]
        if len(parts) == 1:
            return parts[0]
        by_moment = [part.unflatten(2, (len(MOMENTS), -1)) for part in parts]
        return torch.cat(by_moment, dim=3).flatten(2)

    with float32_region(tokens):
        return recomputed(moments, tokens)


def latent_moments(
    latents: Float[Tensor, "batch time channel height width"], step_of_frame: Sequence[int]
) -> Float[Tensor, "batch step feature"]:
    """Moments of the latents themselves, one token per latent.

    They are taken frame by frame; a step has the mean of its frames.

    Args:
        latents: scaled latents, as the backbone sees them.
        step_of_frame: for each latent frame, the step of the blocks that it is part of.
    """

    def moments(values: Tensor) -> Tensor:
        values = values if values.dtype == torch.float64 else values.float()
        return step_moments(values.movedim(2, 4))

    with float32_region(latents):
        per_frame = recomputed(moments, latents)
        steps = torch.tensor(step_of_frame)
        members = (torch.arange(int(steps.max()) + 1)[:, None] == steps[None]).to(per_frame)
        return torch.einsum("st,btf->bsf", members / members.sum(dim=1, keepdim=True), per_frame)


def recomputed(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """A function of one tensor; computed again in the backward pass where there is one."""
    if torch.is_grad_enabled() and values.requires_grad:
        out: Tensor = torch.utils.checkpoint.checkpoint(function, values, use_reentrant=False)
        return out
    return function(values)
