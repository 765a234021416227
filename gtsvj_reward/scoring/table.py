"""The table of scores: one row per clip, as CSV or JSONL."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.reward.output import NonFiniteError, RewardOutput
from gtsvj_reward.tables import write_table

ASPECT = "aspect:"
"""What the columns of aspects begin with."""
SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class ScoredClip:
    """The scores of a latent file, exactly those of the judge's float32."""

    video: str
    """The clip's source as recorded in its file, with the file's parent folders; the file's own
    path if there is no source."""
    latents: str
    """The file's path below the folder that was scored."""
    reward: float | None
    """Normalised score; None if the judge has no statistics to normalise by."""
    raw: float
    """Score on the judge's own scale; higher is better."""
    aspects: dict[str, float]
    """Aspect -> score on the aspect's own scale; empty for a discriminator."""
    trajectory: list[float]
    """Raw score of each step."""
    aspect_trajectory: dict[str, list[float]]
    """Aspect -> score of each step; empty for a discriminator."""
    untrained_geometry: str | None
    """What lies outside the trained geometry."""
    prompt: str | None = None
    """The prompt with which it was scored, for a judge that reads prompts."""
    uncertainty: float | None = None
    """Standard deviation of the score, in its units, >= 0; None for a judge without uncertainty."""

    @classmethod
    def of(
        cls,
        out: RewardOutput,
        index: int,
        *,
        video: str,
        latents: str,
        normalized: bool,
        prompt: str | None = None,
    ) -> "ScoredClip":
        """One clip of a reward's output.

        Raises:
            NonFiniteError: if an aspect or a step is NaN or infinite; the message has the file.
        """
        steps = out.aspect_trajectory[index] if out.aspect_trajectory else {}
        try:
            return cls(
                video=video,
                latents=latents,
                reward=_finite(out.rewards[index : index + 1])[0] if normalized else None,
                raw=_finite(out.raw[index : index + 1])[0],
                aspects={
                    name: _finite(values[index : index + 1])[0]
                    for name, values in out.aspects.items()
                },
                trajectory=_finite(out.trajectory[index]),
                aspect_trajectory={name: _finite(values) for name, values in steps.items()},
                untrained_geometry=out.notes[index],
                prompt=prompt,
                uncertainty=(
                    None
                    if out.uncertainty is None
                    else _finite(out.uncertainty[index : index + 1])[0]
                ),
            )
        except NonFiniteError as error:
            raise NonFiniteError(f"{latents}: {error}") from error


def write_scores(scored: Sequence[ScoredClip], path: str | Path) -> None:
    """Write the table in one step, as CSV or JSONL by its suffix.

    Columns: `video`, `latents`, `reward` (empty without statistics), `raw`, `aspect:<name>` for
    each aspect, `trajectory` (a JSON list) and `untrained_geometry`; `prompt` if clips were scored
    under prompts; `uncertainty` if the judge has it. JSONL also has `aspect_trajectory`, an object
    of lists.

    Raises:
        ValueError: for no clips, clips of different aspects, or another suffix.
    """
    aspects = {tuple(clip.aspects) for clip in scored}
    if len(aspects) != 1:
        raise ValueError(
            f"expected clips of one judge, got {len(scored)} clips with the aspects "
            f"{sorted(aspects)}"
        )
    rows = [_row(clip) for clip in scored]
    for name in ("prompt", "uncertainty"):
        if any(vars(clip)[name] is not None for clip in scored):
            rows = [row | {name: vars(clip)[name]} for row, clip in zip(rows, scored, strict=True)]
    columns = list(rows[0])
    if check_suffix(path) == ".csv":
        columns.remove("aspect_trajectory")
        rows = [{name: _cell(value) for name, value in row.items()} for row in rows]
    write_table(path, columns, [[row[name] for name in columns] for row in rows])


def check_suffix(path: str | Path) -> str:
    """The suffix of a table.

    Raises:
        ValueError: if it is not one of `SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"expected a table that ends in {' or '.join(SUFFIXES)}, got {path}")
    return suffix


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON, with its line end."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _row(clip: ScoredClip) -> dict[str, Any]:
    return {
        "video": clip.video,
        "latents": clip.latents,
        "reward": clip.reward,
        "raw": clip.raw,
        **{ASPECT + name: value for name, value in clip.aspects.items()},
        "trajectory": clip.trajectory,
        "untrained_geometry": clip.untrained_geometry,
        "aspect_trajectory": clip.aspect_trajectory,
    }


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value


def _finite(values: Float[Tensor, " _"]) -> list[float]:
    """Values as the shortest decimals that give the same float32."""
    if not torch.isfinite(values).all():
        raise NonFiniteError(f"the judge gave a value that is not finite: {values.tolist()}")
    return [float(f"{value:.9g}") for value in values.detach().float().tolist()]
