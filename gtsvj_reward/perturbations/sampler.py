"""Which negative a training pair gets: Table A.1 as a sampler."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.perturbations.extended import EXTENDED
from gtsvj_reward.perturbations.operations import (
    PERTURBATIONS,
    Perturbation,
    noisy_segment,
    patch_swap,
)

GENERATED = "generated"
"""The kind of negative that is a generated clip rather than a perturbed one."""


@dataclass(frozen=True)
class NegativeDraw:
    """Composition of one training pair.

    A real anchor is the positive; its negative is a generated clip or, for any other kind, the
    anchor perturbed. A generated anchor is the positive, its perturbation the negative.
    """

    anchor: Literal["real", "generated"]
    """Where the positive comes from."""
    kind: str
    """A name in `PERTURBATIONS` or `EXTENDED`, or `"generated"`."""


@dataclass(frozen=True, kw_only=True)
class PerturbationSampler:
    """Draws the kind of each negative with the probabilities of Table A.1, and makes it.

    The defaults are both columns of the table; `extended()` adds perturbations beyond the paper. A
    kind that a column leaves out is never drawn.

    Raises:
        ValueError: unknown kinds, or probabilities that are negative or do not sum to 1 (to 1e-6).
    """

    real: Mapping[str, float] = field(
        default_factory=lambda: {
            "temporal_slice_swap": 0.04,
            "noisy_segment": 0.10,
            "frame_shuffle": 0.18,
            "frame_drop": 0.18,
            "patch_swap": 0.20,
            GENERATED: 0.30,
        }
    )
    """Probability of each kind of negative for a real anchor."""
    generated: Mapping[str, float] = field(
        default_factory=lambda: {
            "temporal_slice_swap": 0.05,
            "noisy_segment": 0.15,
            "frame_shuffle": 0.25,
            "frame_drop": 0.25,
            "patch_swap": 0.30,
        }
    )
    """Probability of each perturbation of a generated anchor."""
    real_anchor_probability: float = 1.0
    """How often the anchor is a real clip, 0..1."""
    noise_range: tuple[float, float] = (0.1, 0.5)
    """Least and greatest strength of `noisy_segment`, in standard deviations of a channel."""
    region_fraction: tuple[float, float] = (0.25, 0.5)
    """Least and greatest side of the region of `patch_swap`, as fractions of the frame's."""
    one_way: bool = False
    """Whether `patch_swap` follows the printed formula and changes one slice only."""

    def __post_init__(self) -> None:
        # Own, plain copies: a caller's dict cannot change a frozen sampler, and it pickles.
        object.__setattr__(self, "real", dict(self.real))
        object.__setattr__(self, "generated", dict(self.generated))
        _check_column("real", self.real, {*PERTURBATIONS, *EXTENDED, GENERATED})
        _check_column("generated", self.generated, {*PERTURBATIONS, *EXTENDED})
        if not 0 <= self.real_anchor_probability <= 1:
            raise ValueError(
                f"`real_anchor_probability` must lie in 0..1, got {self.real_anchor_probability}"
            )

    @classmethod
    def extended(cls) -> "PerturbationSampler":
        """Table A.1 with a share of 0.2 for `EXTENDED`, taken from its perturbations alike.

        Perturbations make up 0.7 of the real column and all of the generated one; both keep their
        proportions, and the share of generated negatives stays.
        """
        share = 0.2

        def widened(column: Mapping[str, float]) -> dict[str, float]:
            perturbed = 1 - column.get(GENERATED, 0.0)
            kept = {
                kind: value if kind == GENERATED else value * (perturbed - share) / perturbed
                for kind, value in column.items()
            }
            return kept | dict.fromkeys(EXTENDED, share / len(EXTENDED))

        table = cls()
        return cls(real=widened(table.real), generated=widened(table.generated))

    def probabilities(
        self, generated_available: bool, anchor: Literal["real", "generated"] = "real"
    ) -> dict[str, float]:
        """Probability of each kind of negative in use, summing to 1.

        Args:
            generated_available: whether there are generated clips. Without them the real column is
                divided by its share of perturbations.
            anchor: whose column.

        Raises:
            ValueError: a column that needs generated clips where there are none.
        """
        if anchor == "generated":
            if not generated_available:
                raise ValueError("a generated anchor needs generated clips: give some")
            return dict(self.generated)
        if generated_available:
            return dict(self.real)
        perturbed = {kind: share for kind, share in self.real.items() if kind != GENERATED}
        total = sum(perturbed.values())
        if not total > 0:
            raise ValueError(
                'the real column holds "generated" alone, and there are no generated clips: '
                "give generated clips, or give perturbations a probability"
            )
        return {kind: share / total for kind, share in perturbed.items()}

    def draw(self, generator: torch.Generator, *, generated_available: bool) -> NegativeDraw:
        """Draw the anchor and the kind of negative of one training pair.

        Args:
            generator: CPU generator; always advances by two numbers.
            generated_available: whether there are generated clips. Without them every anchor is
                real and the real column is renormalised, see `probabilities`.

        Raises:
            ValueError: only generated negatives are configured, and there are no generated clips.
        """
        which, where = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        anchor: Literal["real", "generated"] = "real"
        if generated_available and which >= self.real_anchor_probability:
            anchor = "generated"
        column = self.probabilities(generated_available, anchor)
        return NegativeDraw(anchor=anchor, kind=_pick(column, where))

    def apply(
        self,
        kind: str,
        latents: Float[Tensor, "batch time channels height width"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch time channels height width"]:
        """Perturb latents by the operation of that name, with this sampler's settings.

        Args:
            kind: a name in `PERTURBATIONS` or `EXTENDED`.
            latents: clean latents, at least 3 steps.
            generator: CPU generator.

        Raises:
            ValueError: no such perturbation (`"generated"` is none), or a clip that is too short.
        """
        operations: dict[str, Perturbation] = {
            **PERTURBATIONS,
            **EXTENDED,
            "noisy_segment": partial(noisy_segment, noise_range=self.noise_range),
            "patch_swap": partial(
                patch_swap, one_way=self.one_way, region_fraction=self.region_fraction
            ),
        }
        if kind not in operations:
            hint = "; its negative is a generated clip, taken as it is" if kind == GENERATED else ""
            raise ValueError(f"{kind!r} is not a perturbation{hint}: use one of {[*operations]}")
        return operations[kind](latents, generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; `from_dict` reads it back."""
        values = asdict(self)
        return {name: [*v] if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PerturbationSampler":
        """Sampler from what `to_dict` wrote; names left out keep their defaults.

        Raises:
            ValueError: an unknown name or invalid values.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown sampler settings {unknown}: expected some of {sorted(known)}"
            )
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**settings)


def _pick(column: Mapping[str, float], position: float) -> str:
    """Kind at `position` in 0..1 of the column's cumulative sum."""
    possible = [(kind, share) for kind, share in column.items() if share > 0]
    reached = 0.0
    for kind, share in possible:
        reached += share
        if position < reached:
            return kind
    return possible[-1][0]  # the shares sum to 1 only up to rounding


def _check_column(name: str, column: Mapping[str, float], known: set[str]) -> None:
    unknown = sorted(set(column) - known)
    if unknown:
        raise ValueError(f"`{name}` has unknown kinds {unknown}: expected some of {sorted(known)}")
    negative = {kind: share for kind, share in column.items() if not share >= 0}
    if negative:
        raise ValueError(f"`{name}` has probabilities that are not >= 0: {negative}")
    total = sum(column.values())
    if not abs(total - 1) <= 1e-6:
        raise ValueError(f"`{name}` must sum to 1, got {total} from {dict(column)}")
