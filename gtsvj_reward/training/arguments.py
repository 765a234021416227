"""Settings of all stages, from a YAML file or the command line."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from gtsvj_reward.dtypes import DTYPES
from gtsvj_reward.flags import documented
from gtsvj_reward.judge import JudgeSettings
from gtsvj_reward.training.data import Truncation
from gtsvj_reward.training.refused import refuse_reports, refuse_settings


@documented
@dataclass(frozen=True, kw_only=True)
class JudgeArguments(JudgeSettings):
    """Which judge to build."""

    base_model: str = ""
    """Bundled name, folder or hub id of the base transformer, or of its pipeline. With
    `from_judge`: where to load the base of that judge from."""
    base_dtype: str = field(default="auto", metadata={"choices": ["auto", *DTYPES]})
    """dtype of the frozen base weights; auto keeps the dtype of the files."""
    text_input: str = field(default="zeros", metadata={"choices": ["zeros", "prompt"]})
    """`prompt` (for `moments`): the judge reads the prompts stored beside the latents (`gtsvj
    encode --prompts`), by two more passes of the base. `zeros`: it reads no prompts."""
    prompt_dropout: float = 0.1
    """With `text_input: prompt`: share of clips shown without their prompt, so that the judge
    scores clips without one too. 0: it must always be given prompts."""
    image_input: str = field(default="none", metadata={"choices": ["none", "image"]})
    """`image`: for `moments` on an image-to-video base, a judge that sees the reference images
    stored beside the latents (`gtsvj encode --images`), and what they change in two more passes of
    the base. none: it sees none."""


@dataclass(kw_only=True)
class SplitSettings:
    """Output folder and held-out data of a stage."""

    output_dir: str = ""
    """Folder for checkpoints and the judge."""
    seed: int = 42
    """Random seed."""
    held_out_fraction: float = 0.1
    """Share of clips held out for evaluation, unless a held-out folder is given."""
    group_by: str | None = None
    r"""Keeps related clips on one side of the split: `folder`, or a regular expression on the name
    of a clip's source without suffix, whose first group names the clip's group, such as `(.+)_\d+`
    for segments a_0 and a_1 of a. Copies of a video always stay together."""

    def __post_init__(self) -> None:
        require_set(self, "output_dir")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(
                f"`held_out_fraction` must lie in (0, 1), got {self.held_out_fraction}"
            )


@dataclass(kw_only=True)
class TruncationSettings:
    """Probability and durations of truncation (paper section 5.1)."""

    truncation_probability: float = 0.25
    """Probability that a pair is cut to a shorter prefix."""
    truncation_min_seconds: float = 2.0
    """Shortest prefix, in seconds."""
    truncation_max_seconds: float = 6.0
    """Longest prefix, in seconds."""

    def truncation(self) -> Truncation:
        """How clips are cut.

        Raises:
            ValueError: if one of the settings is out of its range.
        """
        least, most = self.truncation_min_seconds, self.truncation_max_seconds
        if not 0 <= self.truncation_probability <= 1:
            raise ValueError(
                f"`truncation_probability` must lie in 0..1, got {self.truncation_probability}"
            )
        if not 0 < least <= most:
            raise ValueError(
                "expected 0 < `truncation_min_seconds` <= `truncation_max_seconds`, got "
                f"{least} and {most}"
            )
        return Truncation(self.truncation_probability, least, most)


@dataclass(kw_only=True)
class FeatureSettings(SplitSettings):
    """Where moments are kept."""

    features: str | None = None
    """Folder that caches the moments of clips by content, so that no clip is read twice. Default:
    `features` beside `output_dir`."""

    def feature_folder(self) -> Path:
        """Where moments are kept."""
        return Path(self.features or Path(self.output_dir).parent / "features")


@dataclass(kw_only=True)
class FitConfig(FeatureSettings):
    """Settings of all closed-form fits, for `--readout moments`."""

    batch_size: int = 8
    """Clips of one shape per forward pass."""
    device: str | None = None
    """Device that reads the clips; a GPU if there is one."""


@dataclass(kw_only=True)
class ProjectionSettings:
    """Fits of more clips than one machine holds."""

    projection_width: int | None = None
    """Solve in a random projection to this many features, for example 4096. Each process then keeps
    the features of its own clips, and sums over clips are reduced over processes. None: all
    features, gathered in every process."""


@documented
@dataclass(kw_only=True)
class JudgeTrainingConfig(SplitSettings, TruncationSettings, TrainingArguments):
    """Settings of all trainers: optimisation, truncation, held-out data.

    All settings of `transformers.TrainingArguments` work, except those in `REFUSED`. The paper
    states no learning rate, batch size or number of steps; the defaults are ours.
    """

    head_learning_rate: float = 1e-3
    """Learning rate of the head; the adapter has its own."""
    learning_rate: float = 1e-4
    """Learning rate of the adapter."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    optim: str = "adamw_torch"
    """As in transformers."""
    weight_decay: float = 0.0
    """Of all trained parameters."""
    lr_scheduler_type: str = "constant_with_warmup"
    """As in transformers."""
    logging_steps: float = 10
    """As in transformers."""
    logging_first_step: bool = True
    """As in transformers."""
    dataloader_drop_last: bool = True
    """Drop the last, incomplete batch of an epoch."""
    remove_unused_columns: bool = False
    """Must stay off: the batches are not a model's arguments."""
    report_to: str = "none"
    """tensorboard, wandb, ... or none."""
    debug: str = ""
    """As in transformers."""

    def __post_init__(self) -> None:
        TrainingArguments.__post_init__(self)
        SplitSettings.__post_init__(self)
        refuse_settings(self)
        refuse_reports(self)
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # torch would warn that it cannot


DECIDING = (
    *("seed", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("adafactor", "optim", "optim_args", "max_grad_norm", "bf16", "fp16", "tf32"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "dataloader_drop_last"),
)
"""Settings of transformers that determine the result of a step, apart from batch size."""

NOT_DECIDING = frozenset(
    {
        *("output_dir", "saturation_share", "allow_missing_videos", "calibration"),
        *("held_out_fraction", "group_by", "dimension", "ratings_format", "comparisons_format"),
        *("real", "generated", "held_out_real", "held_out_generated", "perturbations"),
        *("latents", "ratings", "held_out_ratings", "comparisons", "held_out_comparisons"),
        *("from_judge", "aspects", "labels", "features"),
    }
)
"""Our settings that do not affect the result, or only select the examples, which are compared."""


def deciding_settings(args: JudgeTrainingConfig) -> dict[str, Any]:
    """Settings that determine the result of training, by name, for JSON."""
    theirs = {item.name for item in fields(TrainingArguments)}
    ours = {item.name for item in fields(args)} - theirs - NOT_DECIDING
    values = args.to_dict()
    return {name: values[name] for name in values if name in ours or name in DECIDING}


def default_settings(kind: type[JudgeTrainingConfig]) -> dict[str, Any]:
    """Defaults of those settings, and of those that versions of transformers do not have."""
    found = {
        item.name: item.default
        for item in fields(kind)
        if isinstance(item.default, str | int | float | None)
    }
    return {"adafactor": False} | found


def require_set(args: SplitSettings, *names: str) -> None:
    """Reject settings that were left empty."""
    for name in names:
        if not getattr(args, name):
            raise ValueError(f"`{name}` must be set: give its path")
