"""What a judge is: `config.json` of a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from gtsvj_reward.backbones.denoising import NoiseLevel
from gtsvj_reward.judge.aspect import Aspect as Aspect
from gtsvj_reward.judge.config_format import ADDED, FORMAT_VERSION, values_of
from gtsvj_reward.judge.geometry import Geometry as Geometry
from gtsvj_reward.judge.heads import TimePooling, TokenPooling
from gtsvj_reward.judge.settings import ImageInput, JudgeSettings, Stage, TextInput
from gtsvj_reward.latents.json_types import from_values
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.statistics import LatentStatistics

REWARD_STD = (1e-30, 1e30)
"""What a score may be divided by: more or less leaves float32 with zeros or infinities."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(JudgeSettings):
    """What a judge is; stored beside its weights as `config.json`.

    `base_model` and `latent_space` have no default. `family`, `depth`, `base_dtype` and
    `base_fingerprint` are filled in from the transformer when a judge is built.
    """

    latent_space: LatentSpace
    """Which VAE the latents belong to, and how they are scaled."""
    stage: Stage = "discriminator"
    """Last trained stage: energies, aspect scores, or one preference score."""
    has_energy: bool = False
    """For `moments` after the discriminator: the discriminator's energy is kept beside the outputs.
    """
    penalties: tuple[float, ...] | None = None
    """For `moments`: the ridge penalty of each tap, and of the surprise, in the fit that the
    uncertainty belongs to; None for a judge that gives no uncertainty."""
    projection_seed: int = 0
    """For `moments`: seed of the random projection that the uncertainty is kept in."""
    noise_levels: tuple[NoiseLevel, ...] = ()
    """For `surprise`: its shares as timesteps of the generator; filled in when a judge is built."""
    noise_seed: int = 0
    """For `surprise`: seed of the noise."""
    base_fingerprint: str | None = None
    """SHA-256 over settings, names, shapes and slices of the base weights in use."""
    base_dtype: str | None = None
    """dtype of the base weights in training; checkpoints are loaded in it unless told otherwise."""
    family: str | None = None
    """Class name of the transformer."""
    time_pooling: TimePooling = "mean"
    """How the aspect head pools over time: the mean, or the mean and the standard deviation."""
    energy_width: int | None = None
    """Hidden units of the discriminator's head, where that is kept and its energy is an input to
    the aspect head; None: it is not."""
    energy_pooling: TokenPooling = "mean"
    """How the kept head pools the tokens of a step."""
    text_input: TextInput = "zeros"
    """`zeros`: embeddings of zeros, the prompt is ignored; `stored`: one embedding kept in the
    checkpoint (of the empty prompt, say), the prompt is ignored; `prompt`: calls pass `text`, and
    must unless `prompt_dropout` is above 0. The paper uses no prompt."""
    prompt_level: NoiseLevel | None = None
    """For `moments` with `text_input: prompt`: the noise at which the base is asked what a prompt
    changes. None: as much noise as clip; filled in when a judge is built."""
    prompt_dropout: float = 0.0
    """For those: share of training clips that were shown without their prompt; above 0 the judge
    scores clips without prompts as well."""
    image_input: ImageInput = "none"
    """`image`: calls pass `image`, the reference images of the clips, as they must on the
    transformer of an image-to-video model. `none`: it sees no image. Beyond the paper."""
    image_level: NoiseLevel | None = None
    """For `moments` with `image_input: image`: the noise at which the base is asked what an image
    changes. None: as much noise as clip; filled in when a judge is built."""
    aspects: tuple[Aspect, ...] = ()
    """Rated qualities, in the order of the head's outputs; empty for a discriminator."""
    aspect_weights: tuple[float, ...] | None = None
    """Weights of the range-normalised aspects in the score of a preference judge, for reading: a
    copy of what is in `head.safetensors`, refused at load if it differs."""
    score_bias: float | None = None
    """Constant term of that score; likewise."""
    aspect_mean: tuple[float, ...] | None = None
    """Mean of each range-normalised aspect over `reward_data`."""
    aspect_covariance: tuple[tuple[float, ...], ...] | None = None
    """Covariance of the range-normalised aspects over `reward_data`: with the means it gives mean
    and standard deviation of any weighting of aspects."""
    geometry: Geometry | None = None
    """Range of clips that it was trained on; None before training."""
    latent_statistics: LatentStatistics | None = None
    """Statistics of the latents of those clips, to detect unlike ones; None: not known."""
    reward_mean: float | None = None
    """Mean of the raw score over `reward_data`."""
    reward_std: float | None = None
    """Standard deviation of the raw score over `reward_data`."""
    reward_data: str | None = None
    """The data that mean and std come from."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained, for people: data, steps, losses, sampling probabilities. JSON values."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ValueError(f"`lora_rank` must be >= 0, got {self.lora_rank}")
        self.check_readout()
        self.check_reduction()
        self.check_prompts()
        self.check_images()
        if (self.reward_mean is None) != (self.reward_std is None):
            raise ValueError("`reward_mean` and `reward_std` are given together or not at all")
        low, high = REWARD_STD
        if self.reward_std is not None and not low <= self.reward_std <= high:
            raise ValueError(
                f"`reward_std` must be a number from {low:g} to {high:g}, got {self.reward_std}: "
                "rewards are divided by it in float32"
            )
        if self.reward_mean is not None and not isfinite(self.reward_mean):
            raise ValueError(f"`reward_mean` must be a finite number, got {self.reward_mean}")
        self.check_aspects()

    def check_readout(self) -> None:
        """Reject settings of the other readout, and surprise combined with pooling or stride."""
        reduced = self.latent_pooling > 1 or self.temporal_stride > 1
        if self.surprise is not None and reduced:
            raise ValueError(
                "`surprise` needs whole clips: leave out `latent_pooling` and `temporal_stride`, "
                "or `surprise`"
            )
        if self.readout == "moments":
            self.check_adapter()
            return
        given = [
            name
            for name, value in (ADDED[4] | ADDED[5]).items()
            if name != "readout" and getattr(self, name) != value
        ]
        if given:
            raise ValueError(f"{given} are settings of readout='moments', this judge has 'mlp'")

    def check_adapter(self) -> None:
        """Reject LoRA on moments with inputs that query the generator, which LoRA changes."""
        asks = [
            name
            for name, asked in (
                ("surprise", self.surprise is not None),
                ("text_input", self.text_input == "prompt"),
                ("image_input", self.image_input == "image"),
            )
            if asked
        ]
        if self.lora_rank and asks:
            raise ValueError(
                f"{asks} need the generator itself, which LoRA would change: set `lora_rank` to 0, "
                f"got {self.lora_rank}, or leave them out"
            )

    def check_reduction(self) -> None:
        """Refuse factors below 1."""
        for name in ("latent_pooling", "temporal_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be >= 1, got {getattr(self, name)}")

    def check_prompts(self) -> None:
        """Refuse a level without prompts, and a share outside 0..1."""
        reads = self.readout == "moments" and self.text_input == "prompt"
        if self.prompt_level is not None and not reads:
            raise ValueError(
                "`prompt_level` is for readout='moments' with text_input='prompt', got "
                f"{self.readout!r} and {self.text_input!r}"
            )
        if not 0 <= self.prompt_dropout < 1 or (self.prompt_dropout and not reads):
            raise ValueError(
                "`prompt_dropout` must lie in [0, 1), and is for moment judges that read prompts; "
                f"got {self.prompt_dropout} with text_input={self.text_input!r}"
            )

    def check_images(self) -> None:
        """Refuse a level without images, and images beside a part of a clip."""
        if self.image_input == "none":
            if self.image_level is not None:
                raise ValueError("`image_level` is for image_input='image', got 'none'")
            return
        if self.image_level is not None and self.readout != "moments":
            raise ValueError(f"`image_level` is for readout='moments', got {self.readout!r}")
        if self.latent_pooling > 1 or self.temporal_stride > 1:
            raise ValueError(
                "image_input='image' needs whole clips: leave out `latent_pooling` and "
                "`temporal_stride`"
            )

    def check_aspects(self) -> None:
        """Refuse aspects that do not go with the stage, and lists of other lengths."""
        names = [aspect.name for aspect in self.aspects]
        without = self.stage == "discriminator"
        if without == bool(names) and not (self.compares_moments and not names):
            raise ValueError(
                "a discriminator has no `aspects`, later stages have at least one; "
                f"got stage {self.stage!r} with {len(names)}"
            )
        if len(set(names)) != len(names):
            raise ValueError(f"`aspects` have a name twice: {sorted(names)}")
        if self.energy_width is not None and self.stage == "discriminator":
            raise ValueError("`energy_width` is for the stages after the discriminator")
        if (self.aspect_mean is None) != (self.aspect_covariance is None):
            raise ValueError("`aspect_mean` and `aspect_covariance` come together or not at all")
        rows = [self.aspect_weights, self.aspect_mean, self.aspect_covariance]
        rows += list(self.aspect_covariance or ())
        for row in rows:
            if row is not None and len(row) != len(names):
                raise ValueError(f"{len(row)} numbers for {len(names)} aspects in `config.json`")

    @property
    def compares_moments(self) -> bool:
        """Whether comparisons may have made the score straight from the moments."""
        return self.readout == "moments" and self.stage == "preference"

    def to_json(self) -> str:
        """The text of `config.json`."""
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        values["latent_space"] = self.latent_space.to_dict()
        return json.dumps(values, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "JudgeConfig":
        """Read the text of `config.json`, strictly.

        Raises:
            ValueError: if it is not JSON, of another format version, or has fields that are
                unknown, missing or of another type.
        """
        values = values_of(text)
        if isinstance(values.get("latent_space"), dict):
            values["latent_space"] = LatentSpace.from_dict(values["latent_space"])
        return from_values(cls, values)
