"""Settings of stage 3."""

import math
from dataclasses import dataclass
from typing import Literal

from gtsvj_reward.flags import documented
from gtsvj_reward.training.arguments import require_set
from gtsvj_reward.training.labelled import LabelledConfig, LabelledData, LabelledFit

PreferenceLoss = Literal["bradley_terry_with_ties", "rao_kupper", "bradley_terry"]


@dataclass(kw_only=True)
class ComparisonsData(LabelledData):
    """Comparisons of stage 3, and their model (paper sections 4.2, 5.1)."""

    comparisons: str = ""
    """File of comparisons."""
    comparisons_format: str = "plain"
    """plain, or that of a data set, as in docs/data.md: rapidata, datapoint, rankings, videodpo,
    visionreward, videogen-rewardbench, videoreward-train, genai-bench."""
    labels: list[str] | None = None
    """Meaning of labels in the plain format: `0=B` if 0 means that B is better, `0.5=tie`."""
    held_out_comparisons: str | None = None
    """File of held-out comparisons; otherwise `held_out_fraction` of the pairs is held out, so that
    no clip is on both sides."""
    dimension: str = "overall"
    """Which label to train on."""
    preference_loss: PreferenceLoss = "bradley_terry_with_ties"
    """Eq. 7 as printed, its shift-invariant form (Rao-Kupper), or Eq. 5-6, which cannot use
    ties."""
    gamma: float = 1.0
    """Temperature, gamma, of Eq. 7."""
    tie_threshold: float = math.log(5.0)
    """Rao-Kupper's threshold in logits, log theta."""
    drop_ties: bool = False
    """Drop tied pairs; their number is recorded. A probability of one half is not a tie."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "comparisons", "latents")


@documented
@dataclass(kw_only=True)
class PreferenceConfig(ComparisonsData, LabelledConfig):
    """Stage 3 by gradient descent, for `readout: mlp`: one score from the aspects."""

    head_only: bool = False
    """Train only the linear layer; adapter and aspect head stay fixed."""
    train_aspect_head: bool = False
    """Train the aspect head too; the paper names linear layer and LoRA."""
    head_learning_rate: float = 1e-2
    """Learning rate of the linear layer (and aspect head)."""
    truncation_probability: float = 0.2
    """Probability that both clips of a pair are cut to the same shorter duration."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "from_judge")
        if self.head_only and self.train_aspect_head:
            raise ValueError("`head_only` and `train_aspect_head` exclude each other")


@documented
@dataclass(kw_only=True)
class PreferenceFit(ComparisonsData, LabelledFit):
    """Stage 3 in closed form, for `readout: moments`.

    It weights the aspects of `from_judge`. With a discriminator as `from_judge`, or none, it fits
    the score directly on the moments.
    """
