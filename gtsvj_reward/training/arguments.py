"""What can be set from a YAML file or the command line when a judge is trained."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from gtsvj_reward.backbones.lora import Placement
from gtsvj_reward.judge.heads import TokenPooling
from gtsvj_reward.perturbations import PerturbationSampler


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
            "choices": ["auto", "float32", "bfloat16", "float16"],
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

    Everything that `transformers.TrainingArguments` has can be set as well. The paper states no
    learning rate, batch size or number of steps: these are ours.
    """

    held_out_fraction: float = field(
        default=0.1,
        metadata={"help": "Share of clips kept for evaluation where no held-out folder is given."},
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
    weight_decay: float = field(default=0.0, metadata={"help": "AdamW's decoupled decay."})
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
        if self.remove_unused_columns:
            raise ValueError("`remove_unused_columns` must stay off: it would drop the latents")


@dataclass(kw_only=True)
class DiscriminatorConfig(JudgeTrainingConfig):
    """Stage 1: data, objective and optimisation of the energy judge (paper sections 4.1, 5.1).

    The paper states beta, the truncation and Table A.1.
    """

    real: str = field(default="", metadata={"help": "Folder of real latent clips (positives)."})
    generated: str | None = field(
        default=None,
        metadata={
            "help": "Folder of generated latent clips; without it Table A.1 is renormalised."
        },
    )
    held_out_real: str | None = field(
        default=None, metadata={"help": "Folder of real clips for evaluation, not trained on."}
    )
    held_out_generated: str | None = field(
        default=None, metadata={"help": "Folder of generated clips for evaluation."}
    )
    perturbations: str | None = field(
        default=None,
        metadata={
            "help": "JSON of a PerturbationSampler, as `gtsvj calibrate-perturbations` writes it; "
            "Table A.1 by default."
        },
    )
    beta: float = field(default=0.2, metadata={"help": "Weight of the squared energies, Eq. 4."})
    loss_per_step: bool = field(
        default=False,
        metadata={"help": "Take the loss of each step's energy, not of their mean over time."},
    )
    saturation_share: float = field(
        default=0.9,
        metadata={"help": "Share of the loss's bound at which training counts as saturated."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "real")

    def sampler(self) -> PerturbationSampler:
        """The sampler of `perturbations`, or Table A.1.

        Raises:
            FileNotFoundError: if the file is not there.
            ValueError: if it is not a sampler's JSON.
        """
        if self.perturbations is None:
            return PerturbationSampler()
        path = Path(self.perturbations)
        if not path.is_file():
            raise FileNotFoundError(
                f"no file {path}: make one with `gtsvj calibrate-perturbations`"
            )
        try:
            values = json.loads(path.read_text())
            return PerturbationSampler.from_dict(values.get("sampler", values))
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{path} is not the JSON of a perturbation sampler: {error}"
            ) from error


def require_set(args: JudgeTrainingConfig, *names: str) -> None:
    """Refuse settings that were left empty.

    Raises:
        ValueError: with the first of them.
    """
    for name in names:
        if not getattr(args, name):
            raise ValueError(f"`{name}` must be set: give its path")
