"""The output of a reward, and its errors."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


class GeometryError(ValueError):
    """A clip is longer, shorter, larger, smaller, faster or slower than the training clips."""


class NonFiniteError(ValueError):
    """A score is NaN or infinite."""


@dataclass(frozen=True, repr=False)
class RewardOutput:
    """Scores of clips, in input order, and their parts.

    Higher is better everywhere; all numbers are float32. Fields that only a judge provides are
    empty for combinations of rewards and for functions.
    """

    rewards: Float[Tensor, " clip"]
    """The scores; a judge's are normalised by the checkpoint's statistics unless
    `normalize=False`."""
    raw: Float[Tensor, " clip"]
    """Scores on the judge's own scale: minus the mean energy for a discriminator, the mean of the
    range-normalised aspects for an aspect judge, the preference layer's logits after stage 3, or
    the reward's selection of aspects. For combinations and functions, which have no such scale, the
    same as `rewards`."""
    trajectory: list[Float[Tensor, " _"]] = field(default_factory=list)
    """A judge's, per clip: the raw score of each step; its mean is `raw`. Clips may differ in
    length."""
    parts: dict[str, Float[Tensor, " clip"]] = field(default_factory=dict)
    """Name -> scores of a part: aspects of a judge on their own scales, not clipped to them; the
    rewards of a weighted sum before their weights; the members of an ensemble."""
    aspect_trajectory: list[dict[str, Float[Tensor, " _"]]] = field(default_factory=list)
    """A judge's, per clip: aspect name -> score of each step, whose mean is the clip's; empty
    dictionaries for a discriminator."""
    notes: tuple[str | None, ...] = ()
    """A judge's, per clip: what lies outside the trained range, or None."""
    uncertainty: Float[Tensor, " clip"] | None = None
    """Standard deviation of each score, >= 0; None if unknown."""

    def __repr__(self) -> str:
        first = [f"{value:.4f}" for value in self.rewards[:4].tolist()]
        more = ["..."] if len(self.rewards) > len(first) else []
        said = [f"{len(self.rewards)} clips", f"rewards [{', '.join(first + more)}]"]
        lengths = sorted({len(steps) for steps in self.trajectory})
        if self.parts:
            said.append(f"parts: {', '.join(self.parts)}")
        if lengths:
            said.append(f"steps: {', '.join(map(str, lengths))}")
        said += sorted({note for note in self.notes if note})
        if self.uncertainty is not None:
            said.append("with uncertainty")
        return f"RewardOutput({', '.join(said)})"

    @property
    def aspects(self) -> dict[str, Float[Tensor, " clip"]]:
        """The parts of a judge's score; empty for a discriminator, and if no judge scored."""
        return self.parts if self.trajectory else {}

    @property
    def components(self) -> dict[str, Float[Tensor, " clip"]]:
        """Values to log beside the score: a judge's raw score first, then the parts."""
        return {"raw": self.raw, **self.parts} if self.trajectory else self.parts

    def numbers(self) -> dict[str, list[float]]:
        """The components as plain numbers."""
        return {name: values.tolist() for name, values in self.components.items()}

    @classmethod
    def cat(cls, outputs: Sequence["RewardOutput"]) -> "RewardOutput":
        """Concatenate outputs of one reward."""
        uncertain = [out.uncertainty for out in outputs if out.uncertainty is not None]
        return cls(
            rewards=torch.cat([out.rewards for out in outputs]),
            raw=torch.cat([out.raw for out in outputs]),
            trajectory=[steps for out in outputs for steps in out.trajectory],
            parts={
                name: torch.cat([out.parts[name] for out in outputs]) for name in outputs[0].parts
            },
            aspect_trajectory=[steps for out in outputs for steps in out.aspect_trajectory],
            uncertainty=torch.cat(uncertain) if uncertain else None,
            notes=tuple(note for out in outputs for note in out.notes),
        )

    def rows(self, indices: Sequence[int]) -> "RewardOutput":
        """The output of some of the clips, in that order."""
        chosen = torch.tensor(indices, device=self.rewards.device)
        return RewardOutput(
            rewards=self.rewards[chosen],
            raw=self.raw[chosen],
            trajectory=[self.trajectory[i] for i in indices] if self.trajectory else [],
            parts={name: values[chosen] for name, values in self.parts.items()},
            aspect_trajectory=(
                [self.aspect_trajectory[i] for i in indices] if self.aspect_trajectory else []
            ),
            uncertainty=None if self.uncertainty is None else self.uncertainty[chosen],
            notes=tuple(self.notes[i] for i in indices) if self.notes else (),
        )
