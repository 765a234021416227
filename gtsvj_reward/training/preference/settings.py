"""Settings of stage 3."""

import math
from dataclasses import dataclass, field
from typing import Literal

from gtsvj_reward.training.arguments import require_set
from gtsvj_reward.training.labelled import LabelledConfig

PreferenceLoss = Literal["bradley_terry_with_ties", "rao_kupper", "bradley_terry"]


@dataclass(kw_only=True)
class PreferenceConfig(LabelledConfig):
    """Stage 3: one score from the aspects by paired comparisons (paper sections 4.2, 5.1)."""

    comparisons: str = field(default="", metadata={"help": "File of comparisons."})
    comparisons_format: str = field(
        default="plain",
        metadata={
            "help": "visionreward, videogen-rewardbench, videoreward-train, genai-bench or plain."
        },
    )
    held_out_comparisons: str | None = field(
        default=None,
        metadata={
            "help": "File of comparisons for evaluation; else `held_out_fraction` of the pairs, "
            "split so that no clip is on both sides."
        },
    )
    dimension: str = field(default="overall", metadata={"help": "Which label to train on."})
    preference_loss: PreferenceLoss = field(
        default="bradley_terry_with_ties",
        metadata={
            "help": "Eq. 7 as printed, its shift-invariant form (Rao-Kupper), or Eq. 5-6, which "
            "cannot use ties."
        },
    )
    gamma: float = field(default=1.0, metadata={"help": "Temperature, gamma, of Eq. 7."})
    tie_threshold: float = field(
        default=math.log(5.0), metadata={"help": "Rao-Kupper's threshold in logits, log theta."}
    )
    drop_ties: bool = field(
        default=False, metadata={"help": "Leave tied pairs out; their number is recorded."}
    )
    head_only: bool = field(
        default=False,
        metadata={"help": "Train the linear layer alone, with adapter and aspect head fixed."},
    )
    train_aspect_head: bool = field(
        default=False,
        metadata={"help": "Train the aspect head too; the paper names linear layer and LoRA."},
    )
    head_learning_rate: float = field(
        default=1e-2, metadata={"help": "Learning rate of the linear layer (and aspect head)."}
    )
    truncation_probability: float = field(
        default=0.2,
        metadata={"help": "How often both clips of a pair are cut to the same shorter duration."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "comparisons", "latents", "from_judge")
        if self.head_only and self.train_aspect_head:
            raise ValueError("`head_only` and `train_aspect_head` exclude each other")
