"""Rows of a batch through a reward, and their figures into the trainer's log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.judge.batching import buckets
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import Clips, Reward

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
    reward: Reward,
    clips: Mapping[int, tuple[Kind, Tensor]],
    *,
    normalize: bool,
    encode: Callable[[Sequence[int]], TextCondition] | None = None,
) -> dict[int, RowScore]:
    """Scores of some rows of a batch, without a graph; clips of one kind in one call.

    Args:
        reward: a judge, or a combination of judges.
        clips: row -> what the clip is scored as, and the clip (time, channel, height, width).
        normalize: as for `GTSVJReward`.
        encode: rows -> their prompts, for a reward that reads them.

    Raises:
        LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the row.
    """
    rows = list(clips)
    scored: dict[int, RowScore] = {}
    for chosen in buckets([kind for kind, _ in clips.values()]):
        own = [rows[index] for index in chosen]
        space, fps, num_frames = clips[own[0]][0]
        given = Clips(
            latents=[clips[row][1] for row in own],
            space=space,
            fps=fps,
            num_frames=num_frames,
            text=encode(own) if encode is not None and reward.wants_text else None,
            names=[f"row {row} of the batch" for row in own],
        )
        with torch.no_grad():
            out = reward.score(given, normalize)
        numbers = out.numbers()
        for place, (row, score) in enumerate(zip(own, out.rewards.tolist(), strict=True)):
            scored[row] = RowScore(score, {name: part[place] for name, part in numbers.items()})
    return scored


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
