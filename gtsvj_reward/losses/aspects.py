"""The objective on aspect scores that people gave to single clips."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gtsvj_reward.losses.reduction import Reduction, at_least_float32, check_reduction


def aspect_loss(
    predicted: Float[Tensor, "clip aspect"],
    target: Float[Tensor, "clip aspect"],
    mask: Bool[Tensor, "clip aspect"],
    weights: Float[Tensor, " aspect"] | None = None,
    reduction: Reduction = "none",
) -> Float[Tensor, "..."]:
    """Mean squared error of aspect scores (paper section 4.2), over the labels that there are.

    Aspects have scales of their own. On values normalised to 0..1 by each aspect's range all count
    alike; with `weights` = (high - low)² the loss is the squared error on the original scales.

    Args:
        predicted: scores.
        target: labels, on the scale of the scores; NaN is allowed where there is none.
        mask: True where a clip has a label. Other entries contribute nothing, to value or gradient.
        weights: factor >= 0 on each aspect's squared errors; all 1 if None. They are not
            normalised: the mean is over the number of labels.
        reduction: `"none"` gives each clip's mean over its own labels; `"mean"` the mean over all
            labels, in which a clip counts in proportion to how many it has.

    Returns:
        Loss per clip (clip,), or a scalar; half-precision scores are read in float32.

    Raises:
        ValueError: no label at all; a clip without any, if `reduction` is `"none"`; a label that is
            not finite; weights that are negative or not finite; shapes that differ; or an unknown
            reduction.
    """
    check_reduction(reduction)
    _check_shapes(predicted, target, mask, weights)
    _check_labels(target, mask)
    # Masked before the subtraction: NaN must reach neither the error nor its gradient.
    error = at_least_float32(predicted).masked_fill(~mask, 0) - at_least_float32(
        target
    ).masked_fill(~mask, 0)
    squared = error**2 if weights is None else weights.to(error) * error**2
    counts = mask.sum(dim=1)
    if reduction == "mean":
        return squared.sum() / counts.sum()
    bare = (counts == 0).nonzero().flatten().tolist()
    if bare:
        raise ValueError(
            f"clip {bare[0]} has no label ({len(bare)} of {len(counts)} clips): its loss is "
            'undefined. Leave it out, or use `reduction="mean"`, which ignores it'
        )
    return squared.sum(dim=1) / counts


def _check_shapes(predicted: Tensor, target: Tensor, mask: Tensor, weights: Tensor | None) -> None:
    shapes = tuple(predicted.shape), tuple(target.shape), tuple(mask.shape)
    if predicted.ndim != 2 or len(set(shapes)) > 1 or mask.dtype != torch.bool:
        raise ValueError(
            "expected scores, labels and a boolean mask of one shape (clip, aspect); "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]} ({mask.dtype})"
        )
    if weights is None:
        return
    if weights.shape != predicted.shape[1:]:
        raise ValueError(
            f"expected one weight for each of {predicted.shape[1]} aspects, "
            f"got shape {tuple(weights.shape)}"
        )
    bad = (~(weights.isfinite() & (weights >= 0))).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"the weight of aspect {bad[0]} is {weights[bad[0]].item()}: expected finite, >= 0"
        )


def _check_labels(target: Tensor, mask: Tensor) -> None:
    if not mask.any():
        raise ValueError(
            f"none of {mask.shape[0]} clips has a label for any of {mask.shape[1]} aspects: "
            "leave such clips out of the batch"
        )
    bad = (mask & ~target.isfinite()).nonzero().tolist()
    if bad:
        clip, aspect = bad[0]
        raise ValueError(
            f"the label of clip {clip}, aspect {aspect} is {target[clip, aspect].item()} "
            f"({len(bad)} labels are not finite): set `mask` to False where there is no label"
        )
