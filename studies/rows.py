"""Rows of the study: one per variant of the recipe."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gtsvj_reward.perturbations import GENERATED, PERTURBATIONS, PerturbationSampler

Base = Literal["trained", "random"]


@dataclass(frozen=True, kw_only=True)
class Stage1:
    """A discriminator; rows with equal ones share its training."""

    name: str
    base: Base = "trained"
    negatives: str = "table"
    """`table`: Table A.1; `generated`: generated clips alone; `uniform`; `calibrated`; `anchors`:
    Table A.1 with generated clips as positives 40% of the time."""
    judge: dict[str, Any] = field(default_factory=dict)
    """Beyond the study's own settings of the judge."""
    truncation: float = 0.25
    per_step: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant: a discriminator or none, then aspects, then preferences."""

    name: str
    claim: str
    """Question of the comparison, for the page."""
    seeds: int = 3
    stage1: Stage1 | None
    """None: no discriminator; the bare base model goes into stage 2."""
    bare: Stage1 | None = None
    """The judge's settings where there is no discriminator."""
    labels: int | None = None
    aspects: dict[str, Any] = field(default_factory=dict)
    """Beyond the study's own settings of stage 2."""
    preference: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Stage1:
        """The judge's settings, with or without a discriminator."""
        settings = self.stage1 or self.bare
        if settings is None:
            raise ValueError(f"row {self.name!r} has neither `stage1` nor `bare`")
        return settings


FULL = Stage1(name="full")
CHEAPER = (
    "full",
    "stride_2",
    "half_depth",
    "third_depth",
    "pooled_2",
    "pooled_2_stride_2",
)
"""Rows that differ in what a score costs, for the section on accuracy against cost."""
BASELINES = ("ridge", "conv3d", "framewise", "temporal_difference")
"""Trained on the same labels, without a transformer; the last one is not trained at all."""


def sampler_of(negatives: str, calibrated: PerturbationSampler | None) -> PerturbationSampler:
    """The sampler of a kind of negatives.

    Raises:
        ValueError: for `calibrated` without a calibration, or an unknown kind.
    """
    table = PerturbationSampler()
    share = 1 - table.real[GENERATED]
    if negatives == "table":
        return table
    if negatives == "anchors":
        return replace(table, real_anchor_probability=0.6)
    if negatives == "generated":
        return replace(table, real={**dict.fromkeys(PERTURBATIONS, 0.0), GENERATED: 1.0})
    if negatives == "uniform":
        each = share / len(PERTURBATIONS)
        return replace(table, real={**dict.fromkeys(PERTURBATIONS, each), GENERATED: 1 - share})
    if negatives == "calibrated" and calibrated is not None:
        return calibrated
    raise ValueError(f"no sampler for {negatives!r}")


def rows() -> list[Row]:
    """All rows, those that matter most first."""
    claims = [
        Row(name="full", claim="the whole recipe", seeds=5, stage1=FULL),
        Row(
            name="no_discriminator",
            claim="the discriminator stage helps the reward (Table 1, Figure 5)",
            seeds=5,
            stage1=None,
            bare=FULL,
        ),
        Row(
            name="random_base",
            claim="the generator's weights matter",
            seeds=5,
            stage1=Stage1(name="random_base", base="random"),
        ),
        Row(
            name="generated_only",
            claim="perturbed negatives matter (Figure 6)",
            stage1=Stage1(name="generated_only", negatives="generated"),
        ),
        Row(
            name="larger_adapter",
            claim="is the adapter too small, or trained too briefly?",
            stage1=Stage1(
                name="larger_adapter",
                judge={"lora_rank": 32, "lora_alpha": 32.0, "lora_placement": "all"},
            ),
            aspects={"max_steps": 500, "learning_rate": 1e-3},
        ),
        Row(
            name="half_depth",
            claim="some of the layers are enough",
            stage1=Stage1(name="half_depth", judge={"depth": 3}),
        ),
    ]
    cheaper: dict[str, dict[str, Any]] = {
        "third_depth": {"depth": 2},
        "pooled_2": {"latent_pooling": 2},
        "stride_2": {"temporal_stride": 2},
        "pooled_2_stride_2": {"latent_pooling": 2, "temporal_stride": 2},
    }
    claims += [
        Row(
            name=name, claim="a cheaper judge is good enough", stage1=Stage1(name=name, judge=judge)
        )
        for name, judge in cheaper.items()
    ]
    options: dict[str, dict[str, Any]] = {
        "keep_energy": {"aspects": {"keep_energy": True}},
        "mean_std": {"aspects": {"time_pooling": "mean_std"}},
        "attention": {"aspects": {"token_pooling": "attention"}},
        "rao_kupper": {"preference": {"preference_loss": "rao_kupper"}},
    }
    claims += [
        Row(name=name, claim="options beyond the paper", stage1=FULL, **changes)
        for name, changes in options.items()
    ]
    claims += [
        Row(
            name="no_truncation",
            claim="clips of varying length help at other lengths (Table 1, p = 0)",
            stage1=Stage1(name="no_truncation", truncation=0.0),
            preference={"truncation_probability": 0.0},
        ),
    ]
    claims += [
        Row(
            name=f"lora_{placement}",
            claim="LoRA on the middle third is best, the last third is cheapest (Figure 4)",
            stage1=Stage1(name=f"lora_{placement}", judge={"lora_placement": placement}),
        )
        for placement in ("middle", "first")
    ]
    claims += [
        Row(
            name=f"{name}_{count}",
            claim="the discriminator saves labels",
            stage1=None if name == "bare" else FULL,
            bare=FULL if name == "bare" else None,
            labels=count,
        )
        for count in (50, 150, 1000, 2000)
        for name in ("labels", "bare")
    ]
    claims += [
        Row(
            name=f"{negatives}_negatives",
            claim="which perturbations, how often (Appendix A.1)",
            stage1=Stage1(name=f"{negatives}_negatives", negatives=negatives),
        )
        for negatives in ("uniform", "calibrated", "anchors")
    ]
    claims.append(
        Row(
            name="per_step_loss",
            claim="one loss per step or of the mean",
            stage1=Stage1(name="per_step_loss", per_step=True),
        )
    )
    claims += [
        Row(
            name=f"timestep_{timestep}",
            claim="clean latents are read best at timestep 0",
            stage1=Stage1(name=f"timestep_{timestep}", judge={"timestep": float(timestep)}),
        )
        for timestep in (100, 200, 300, 400)
    ]
    return claims
