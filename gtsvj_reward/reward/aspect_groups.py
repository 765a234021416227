"""Aspects grouped under the score names of VideoAlign."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.reward.selection import AspectSelection, select_aspects

VISUAL_QUALITY = (
    "composition",
    "focus",
    "color",
    "lighting accurate",
    "lighting aes",
    "shape at beginning",
    "clear",
    "detail refinement",
)
"""VisionReward's aspects of single frames. VideoAlign's VQ covers reasonable shapes, clarity, rich
detail and an appealing image."""

MOTION_QUALITY = (
    "camera movement",
    "shape throughout",
    "object motion dynamic",
    "camera motion dynamic",
    "movement smoothness",
    "movement reality",
    "image quality stability",
    "camera stability",
    "physics law",
)
"""VisionReward's aspects of changes over time. VideoAlign's MQ covers stability, natural and smooth
movement, and enough of it."""

LEFT_OUT = ("alignment", "letters", "unsafe type", "safety")
"""Aspects in neither group: the prompt, which the judge does not read; writing, which most videos
lack; and safety, which VideoAlign includes in VQ but our judges were not trained on."""


class AspectGroups:
    """Scores of groups of aspects: each the mean of its range-normalised aspects.

    The same as a reward of `GTSVJReward(judge, aspects=group)` for each group, from one forward
    pass.

    Args:
        config: of the judge.
        groups: name -> names of aspects.

    Raises:
        ValueError: for a group that is empty, or an aspect that the judge does not have.
    """

    def __init__(self, config: JudgeConfig, groups: Mapping[str, Sequence[str]]) -> None:
        self.config = config
        self.selections: dict[str, AspectSelection] = {}
        for name, aspects in groups.items():
            try:
                selection = select_aspects(config, aspects, None)
            except ValueError as error:
                raise ValueError(f"group {name!r}: {error}") from error
            if selection is not None:
                self.selections[name] = selection

    def scores(
        self, aspects: Mapping[str, Float[Tensor, " clip"]], *, normalize: bool
    ) -> dict[str, Float[Tensor, " clip"]]:
        """Name -> score of each clip, float32; higher is better.

        Args:
            aspects: name -> scores on the aspect's own scale, as a `RewardOutput` has them.
            normalize: subtract mean and divide by standard deviation, computed from the
                checkpoint's statistics of the aspects; False: the mean of aspects scaled to 0..1.

        Raises:
            ValueError: `normalize` without statistics in the checkpoint.
        """
        scaled = torch.stack(
            [
                (aspects[aspect.name] - aspect.low) / (aspect.high - aspect.low)
                for aspect in self.config.aspects
            ],
            dim=-1,
        )
        found: dict[str, Tensor] = {}
        for name, selection in self.selections.items():
            mean, std = selection.statistics(self.config) if normalize else (0.0, 1.0)
            found[name] = (selection.score(scaled) - mean) / std
        return found
