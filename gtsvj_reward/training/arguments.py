"""What can be set from a YAML file or the command line, of any stage."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from gtsvj_reward.backbones.lora import Placement
from gtsvj_reward.dtypes import DTYPES
from gtsvj_reward.judge.heads import TokenPooling
from gtsvj_reward.training.refused import refuse_settings


@dataclass(kw_only=True)
class JudgeArguments:
    """Which judge to build; see `JudgeConfig` for the meaning of each."""

    base_model: str = field(
        default="", metadata={"help": "Bundled name, folder or hub id of the base transformer."}
    )
    base_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a hub id."}
    )
    base_dtype: str = field(
        default="auto",
        metadata={
            "help": "dtype of the frozen base weights; auto keeps that of the files.",
            "choices": ["auto", *DTYPES],
        },
    )
    depth: int | None = field(
        default=None, metadata={"help": "Blocks of the transformer to use; all by default."}
    )
    latent_pooling: int = field(
        default=1,
        metadata={"help": "Edge of the squares of latents that are averaged; 1: all latents."},
    )
    temporal_stride: int = field(
        default=1, metadata={"help": "One latent frame in so many is seen, from the first on."}
    )
    text_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of the null text; the model's own by default."}
    )
    lora_rank: int = field(default=8, metadata={"help": "LoRA rank; 0 trains the head alone."})
    lora_alpha: float = field(default=8.0, metadata={"help": "LoRA is scaled by alpha / rank."})
    lora_placement: Placement = field(
        default="last", metadata={"help": "Third of the blocks that carries LoRA, or all."}
    )
    head_width: int = field(default=256, metadata={"help": "Hidden units of the head."})
    token_pooling: TokenPooling = field(
        default="mean", metadata={"help": "How the head pools the tokens of a step."}
    )
    timestep: float = field(default=0.0, metadata={"help": "Noise level the transformer is told."})


@dataclass(kw_only=True)
class JudgeTrainingConfig(TrainingArguments):
    """What all stages share: optimisation, truncation, what is held out.

    What else `transformers.TrainingArguments` has can be set as well, apart from what `REFUSED`
    names. The paper states no learning rate, batch size or number of steps: these are ours.
    """

    held_out_fraction: float = field(
        default=0.1,
        metadata={"help": "Share of clips kept for evaluation where no held-out folder is given."},
    )
    group_by: str | None = field(
        default=None,
        metadata={
            "help": "Which clips must stay on one side when some are held out: `folder`, or a "
            "regular expression whose first group, in the name of a clip's source without suffix, "
            r"names the group: `(.+)_\d+` for segments a_0, a_1 of a. A video under several names "
            "is on one side in any case."
        },
    )
    truncation_probability: float = field(
        default=0.25, metadata={"help": "How often a pair is cut to a shorter prefix."}
    )
    truncation_min_seconds: float = field(default=2.0, metadata={"help": "Shortest prefix."})
    truncation_max_seconds: float = field(default=6.0, metadata={"help": "Longest prefix."})
    head_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of the head; the adapter has its own."}
    )

    output_dir: str = field(default="", metadata={"help": "Folder for checkpoints and the judge."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the adapter."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to it."})
    optim: str = field(default="adamw_torch", metadata={"help": "As in transformers."})
    weight_decay: float = field(default=0.0, metadata={"help": "Of all trained parameters."})
    lr_scheduler_type: str = field(
        default="constant_with_warmup", metadata={"help": "As in transformers."}
    )
    logging_steps: float = field(default=10, metadata={"help": "As in transformers."})
    logging_first_step: bool = field(default=True, metadata={"help": "As in transformers."})
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Drop the last, incomplete batch of an epoch."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: the batches are not a model's arguments."}
    )
    report_to: str = field(default="none", metadata={"help": "tensorboard, wandb, ... or none."})
    debug: str = field(default="", metadata={"help": "As in transformers."})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "output_dir")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(
                f"`held_out_fraction` must lie in (0, 1), got {self.held_out_fraction}"
            )
        refuse_settings(self)


def require_set(args: JudgeTrainingConfig, *names: str) -> None:
    """Refuse settings that were left empty.

    Raises:
        ValueError: with the first of them.
    """
    for name in names:
        if not getattr(args, name):
            raise ValueError(f"`{name}` must be set: give its path")
