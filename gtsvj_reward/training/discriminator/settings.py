"""Settings of stage 1."""

import json
from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.flags import documented
from gtsvj_reward.perturbations import PerturbationSampler
from gtsvj_reward.training.arguments import (
    FeatureSettings,
    FitConfig,
    JudgeTrainingConfig,
    ProjectionSettings,
    SplitSettings,
    TruncationSettings,
    require_set,
)
from gtsvj_reward.training.closed_form.showing import WrongPrompts

TABLE, EXTENDED = "table", "extended"
"""Names of samplers for `perturbations`."""


@dataclass(kw_only=True)
class DiscriminatorData(SplitSettings):
    """Data and objective of stage 1 (paper sections 4.1, 5.1).

    The paper states beta, the truncation and Table A.1.
    """

    real: str = ""
    """Folder of real latent clips, the positives."""
    generated: str | None = None
    """Folder of generated latent clips; without it Table A.1 is renormalised."""
    held_out_real: str | None = None
    """Folder of held-out real clips, for evaluation only."""
    held_out_generated: str | None = None
    """Folder of held-out generated clips, for evaluation only."""
    perturbations: str | None = None
    """`table`: Table A.1, the default; `extended`: it with blur and ghosting of latents, beyond the
    paper; or the JSON of a PerturbationSampler, as `gtsvj calibrate-perturbations` writes it."""
    beta: float = 0.2
    """Weight of the squared energies, Eq. 4."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_set(self, "real")

    def sampler(self) -> PerturbationSampler:
        """The sampler that `perturbations` names.

        Raises:
            FileNotFoundError: if the file is not there.
            ValueError: if it is not a sampler's JSON.
        """
        if self.perturbations in (None, TABLE):
            return PerturbationSampler()
        if self.perturbations == EXTENDED:
            return PerturbationSampler.extended()
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


@documented
@dataclass(kw_only=True)
class DiscriminatorConfig(DiscriminatorData, JudgeTrainingConfig):
    """Stage 1 by gradient descent, for `readout: mlp`."""

    loss_per_step: bool = False
    """Compute the loss per step instead of on the mean energy over time."""
    saturation_share: float = 0.9
    """Share of the loss bound at which training counts as saturated."""


@documented
@dataclass(kw_only=True)
class DiscriminatorTuning(DiscriminatorConfig, FeatureSettings):
    """Stage 1 for `readout: moments` with LoRA: the closed form, then gradient descent from it."""

    perturbations: str | None = EXTENDED
    """`extended`, the default: Table A.1 with blur and ghosting of latents, beyond the paper;
    `table`: Table A.1; or the JSON of a PerturbationSampler, as `gtsvj calibrate-perturbations`
    writes it."""
    draws: int = 4
    """Negatives of each real clip that the closed form is solved with."""
    head_learning_rate: float = 1e-5
    """Learning rate of the readout: small, since the closed form is its optimum on the base without
    LoRA. 0 leaves the readout as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ValueError(f"`draws` must be at least 1, got {self.draws}")


@documented
@dataclass(kw_only=True)
class DiscriminatorFit(DiscriminatorData, TruncationSettings, ProjectionSettings, FitConfig):
    """Stage 1 in closed form, for `readout: moments`."""

    perturbations: str | None = EXTENDED
    """`extended`, the default: Table A.1 with blur and ghosting of latents, beyond the paper;
    `table`: Table A.1; or the JSON of a PerturbationSampler, as `gtsvj calibrate-perturbations`
    writes it."""
    draws: int = 4
    """Negatives that are drawn for each real clip; each weighs one in so many, so that the
    objective stays Eq. 4. 0: none, for a judge of prompts or first frames alone."""
    swapped: int = 4
    """With `text_input: prompt`: negatives of each real clip that are the clip itself under the
    prompt of another one; with `image_input: image`, with the first frame of another one of its
    size. 0: none, and the judge learns nothing of prompts or images."""
    wrong_prompts: WrongPrompts = "others"
    """Source of those prompts: `others`, other real clips; `stored`, the clip's own wrong prompts
    from `gtsvj encode --wrong_prompts`, each used once, such as captions with one attribute
    wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.draws, self.swapped) < 0 or self.draws + self.swapped < 1:
            raise ValueError(
                "`draws` and `swapped` must be at least 0, and not both 0, got "
                f"{self.draws} and {self.swapped}"
            )
