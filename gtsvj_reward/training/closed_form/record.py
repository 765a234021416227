"""What the config of a judge says of its fit, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge.card import CONTENT
from gtsvj_reward.metrics import spearman

RATED = "rated"
GROUP_SHARE = "variance that a group has in common, of the noise"
"""In the record of a fit to ratings."""

METHODS = {False: "closed form", True: "closed form, on LoRA that was trained before"}
"""Whether a judge has LoRA -> what `training` of its config says."""

ID_LENGTH = 12
"""Characters of a clip's content that the record keeps."""


def content_record(
    stage: str, labelled: Sequence[Sequence[str]], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Which clips have the labels of a stage, and how these differ from the judge before.

    Args:
        stage: the stage.
        labelled: content of the clip, or of the two clips, of each label.
        before: the training record of the judge that was refitted.
    """
    now = {" ".join(name[:ID_LENGTH] for name in names) for names in labelled}
    then = set(before.get(f"{stage}: {CONTENT}", ()))
    return {"added": len(now - then), "withdrawn": len(then - now), CONTENT: sorted(now)}


def scale_of(scores: Float[Tensor, "row output"], data: str) -> dict[str, Any]:
    """Mean and standard deviation of a score, as the config has them.

    Raises:
        ValueError: if all scores are the same.
    """
    std = scores.std().item()
    if not std > 0:
        raise ValueError(f"the score is the same for all of {data}: its scale cannot be measured")
    return {"reward_mean": scores.mean().item(), "reward_std": std, "reward_data": data}


def agreement(
    left_out: Float[Tensor, "clip output"],
    targets: Float[Tensor, "clip output"],
    names: Sequence[str],
) -> dict[str, float]:
    """Rank correlation of ratings with predictions of fits that left the clip's group out."""
    found = {}
    for column, name in enumerate(names):
        rated = ~targets[:, column].isnan()
        value = spearman(left_out[rated, column], targets[rated, column])
        found[name] = round(value, 4)
    return found
