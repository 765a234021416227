"""Rows of a batch through a reward, and their figures into the trainer's log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward.combine import RewardEnsemble, WeightedReward
from gtsvj_reward.reward.members import Reward, checked
from gtsvj_reward.reward.output import GeometryError, NonFiniteError
from gtsvj_reward.reward.reward import GTSVJReward

Text = str | Sequence[Mapping[str, Any]]
"""A prompt or completion: a string, or the messages of a conversation."""

LogMetric = Callable[[str, float], None]
"""Takes a name and a number; TRL averages it over processes and logging steps."""

Kind = tuple[LatentSpace | None, float | None, int | None]
"""What clips are scored as: latent space, frames per second, frames asked for."""


@dataclass(frozen=True)
class RowScore:
    """What a reward says of one row."""

    score: float
    """The reward."""
    parts: dict[str, float]
    """What it is made of: raw score and aspects of a judge, or the parts of a combination."""


def score_rows(
    reward: Reward, clips: Mapping[int, tuple[Kind, Tensor]], *, normalize: bool
) -> dict[int, RowScore]:
    """Scores of some rows of a batch, without a graph; clips of one kind in one call.

    Args:
        reward: a judge, or a combination of judges.
        clips: row -> what the clip is scored as, and the clip (time, channel, height, width).
        normalize: as for `GTSVJReward`.

    Raises:
        LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the rows.
    """
    kinds: dict[Kind, list[int]] = {}
    for row, (kind, _) in clips.items():
        kinds.setdefault(kind, []).append(row)
    scored: dict[int, RowScore] = {}
    for kind, rows in kinds.items():
        try:
            with torch.no_grad():
                scores, parts = score_parts(
                    reward, [clips[row][1] for row in rows], kind, normalize
                )
        except (LatentSpaceError, GeometryError, NonFiniteError) as error:
            raise type(error)(f"rows {rows} of the batch, clips in this order: {error}") from error
        numbers = {name: values.tolist() for name, values in parts.items()}
        for place, (row, score) in enumerate(zip(rows, scores.tolist(), strict=True)):
            made_of = {name: values[place] for name, values in numbers.items()}
            scored[row] = RowScore(score, made_of)
    return scored


def score_parts(
    reward: Reward, clips: Sequence[Tensor], kind: Kind, normalize: bool
) -> tuple[Float[Tensor, " clip"], dict[str, Float[Tensor, " _"]]]:
    """Scores of clips, and by name what they are made of."""
    space, fps, num_frames = kind
    if isinstance(reward, GTSVJReward):
        out = reward.details(
            clips, space=space, fps=fps, num_frames=num_frames, normalize=normalize
        )
        return out.rewards, {"raw": out.raw, **out.aspects}
    if isinstance(reward, WeightedReward | RewardEnsemble):
        combined = reward.details(
            clips, space=space, fps=fps, num_frames=num_frames, normalize=normalize
        )
        return combined.rewards, combined.parts
    scores = reward(clips, space=space, fps=fps, num_frames=num_frames, normalize=normalize)
    return checked("reward", scores, len(clips)), {}


def log_parts(log_metric: LogMetric | None, name: str, scored: Sequence[RowScore]) -> None:
    """Mean and standard deviation of each part over a batch, beside those TRL logs of the score.

    Args:
        log_metric: of the trainer; None: it has none, and nothing is logged.
        name: of the reward function.
        scored: the rows that have a score; if there are none, nothing is logged.
    """
    if log_metric is None or not scored:
        return
    for part in scored[0].parts:
        values = torch.tensor([row.parts[part] for row in scored], dtype=torch.float64)
        log_metric(f"rewards/{name}/{part}/mean", values.mean().item())
        log_metric(f"rewards/{name}/{part}/std", values.std(correction=0).item())


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {list(choices)}, got {value!r}")
