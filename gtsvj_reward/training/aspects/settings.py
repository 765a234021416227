"""Settings of stage 2."""

from dataclasses import dataclass
from typing import Literal

from gtsvj_reward.flags import documented
from gtsvj_reward.judge.heads import TimePooling
from gtsvj_reward.training.arguments import ProjectionSettings, require_set
from gtsvj_reward.training.labelled import LabelledConfig, LabelledData, LabelledFit

TargetScale = Literal["range", "raw"]


@dataclass(kw_only=True)
class RatingsData(LabelledData):
    """Ratings of stage 2 (paper sections 4.2, 5.1).

    Without `from_judge` it starts from the bare base model, the paper's "No DM" ablation.
    """

    ratings: str = ""
    """File of ratings."""
    ratings_format: str = "plain"
    """plain, visionreward, videoreward-train, videofeedback or videofeedback2."""
    held_out_ratings: str | None = None
    """File of held-out ratings; otherwise `held_out_fraction` of the clips is held out."""
    aspects: list[str] | None = None
    """Aspects to predict: names known to the format, or name=low:high with your own scale. Default:
    all aspects of the format."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "ratings", "latents")


@documented
@dataclass(kw_only=True)
class AspectConfig(RatingsData, LabelledConfig):
    """Stage 2 by gradient descent, for `readout: mlp`.

    The defaults are the paper's plain version; each field says what goes beyond it.
    """

    target_scale: TargetScale = "range"
    """`range`: squared errors of labels scaled to 0..1. `raw`: of unscaled labels, so that wide
    scales weigh more."""
    time_pooling: TimePooling = "mean"
    """Pooling over time: the mean (paper), or mean and standard deviation."""
    keep_energy: bool = False
    """Keep the energy head, frozen, as an input to the new one (not paper)."""
    truncation_probability: float = 0.0
    """Probability that a clip is cut to a shorter prefix; the paper does not say."""


@documented
@dataclass(kw_only=True)
class AspectFit(RatingsData, ProjectionSettings, LabelledFit):
    """Stage 2 in closed form, for `readout: moments`."""
