"""Settings of stages 2 and 3."""

import math
from dataclasses import dataclass, field
from typing import Literal

from gtsvj_reward.judge.heads import TimePooling
from gtsvj_reward.training.arguments import JudgeTrainingConfig, require_set

PreferenceLoss = Literal["bradley_terry_with_ties", "rao_kupper", "bradley_terry"]
TargetScale = Literal["range", "raw"]


@dataclass(kw_only=True)
class RewardStageConfig(JudgeTrainingConfig):
    """What stages 2 and 3 share: where they start, and where labels and clips are."""

    from_judge: str | None = field(
        default=None,
        metadata={
            "help": "Judge of the stage before: folder, bundled name or hub id. Its base model is "
            "loaded from where it says, or from `base_model`."
        },
    )
    latents: str = field(
        default="", metadata={"help": "Folder of latent clips, which the labels refer to."}
    )
    allow_missing_videos: bool = field(
        default=False,
        metadata={"help": "Train on the rest where labelled videos have no latents."},
    )
    calibration: str | None = field(
        default=None,
        metadata={
            "help": "Folder of latent clips over which mean and standard deviation of the score "
            "are measured; the held-out clips by default."
        },
    )


@dataclass(kw_only=True)
class AspectConfig(RewardStageConfig):
    """Stage 2: aspect scores by regression (paper sections 4.2, 5.1).

    Without `from_judge` it starts from the bare base model, the paper's "No DM" ablation. The plain
    version of the paper is the default; what goes beyond it is said at each field.
    """

    ratings: str = field(default="", metadata={"help": "File of ratings."})
    ratings_format: str = field(
        default="plain", metadata={"help": "visionreward, videoreward-train or plain."}
    )
    held_out_ratings: str | None = field(
        default=None,
        metadata={"help": "File of ratings for evaluation; else `held_out_fraction` of the clips."},
    )
    aspects: list[str] | None = field(
        default=None,
        metadata={
            "help": "Aspects to predict: names of the format, or name=low:high for your own scale; "
            "all of the format by default."
        },
    )
    target_scale: TargetScale = field(
        default="range",
        metadata={
            "help": "`range`: squared errors of labels scaled to 0..1; `raw`: of labels as they "
            "are, so that wide scales weigh more."
        },
    )
    time_pooling: TimePooling = field(
        default="mean",
        metadata={"help": "Over time: the mean (paper), or the mean and the standard deviation."},
    )
    keep_energy: bool = field(
        default=False,
        metadata={"help": "Keep the energy head, frozen, as an input to the new one (not paper)."},
    )
    truncation_probability: float = field(
        default=0.0,
        metadata={"help": "How often a clip is cut to a shorter prefix; the paper says nothing."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "ratings", "latents")


@dataclass(kw_only=True)
class PreferenceConfig(RewardStageConfig):
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
