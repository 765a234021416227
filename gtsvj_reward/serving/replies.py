"""The server's answers: JSON, whose numbers are the judge's own to the last bit."""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.serving.bodies import MalformedError, read_json

HOST_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class ScoreReply:
    """Scores of the clips of a request, in their order; higher is better everywhere."""

    scores: tuple[float, ...]
    """Normalised by the checkpoint's mean and standard deviation if requested, else raw; version 1
    has raw ones only."""
    raw_scores: tuple[float, ...]
    """On the judge's own scale."""
    aspects: dict[str, tuple[float, ...]]
    """Aspect -> scores on its own scale; empty for a discriminator."""
    trajectory: tuple[tuple[float, ...], ...]
    """Per clip, the raw score of each step."""
    untrained_geometry: tuple[str | None, ...]
    """Per clip, what lies outside the trained range, for a server that scores such clips."""
    uncertainty: tuple[float, ...] | None = None
    """Standard deviation of each of `scores`; None for a judge without uncertainty, and from older
    servers."""

    @classmethod
    def from_output(cls, output: RewardOutput) -> "ScoreReply":
        """The reward's output; float32 numbers are exact in JSON."""
        return cls(
            scores=tuple(output.rewards.tolist()),
            raw_scores=tuple(output.raw.tolist()),
            aspects={name: tuple(scores.tolist()) for name, scores in output.aspects.items()},
            trajectory=tuple(tuple(steps.tolist()) for steps in output.trajectory),
            untrained_geometry=output.notes,
            uncertainty=(
                None if output.uncertainty is None else tuple(output.uncertainty.tolist())
            ),
        )

    def output(self) -> RewardOutput:
        """The reward's output, without the aspects of each step, which are not sent."""
        return RewardOutput(
            rewards=torch.tensor(self.scores),
            raw=torch.tensor(self.raw_scores),
            trajectory=[torch.tensor(steps) for steps in self.trajectory],
            parts={name: torch.tensor(scores) for name, scores in self.aspects.items()},
            notes=self.untrained_geometry,
            uncertainty=None if self.uncertainty is None else torch.tensor(self.uncertainty),
        )


def by_name(output: RewardOutput, normalized: bool) -> dict[str, list[float]]:
    """Scores of each clip by names, that to train with first.

    Args:
        output: what the judge says.
        normalized: whether its rewards are; else `raw` is the first.
    """
    found = {"score": output.rewards} if normalized else {}
    found["raw"] = output.raw
    if output.uncertainty is not None:
        found["uncertainty"] = output.uncertainty
    found |= {f"aspect:{name}": scores for name, scores in output.aspects.items()}
    return {name: scores.tolist() for name, scores in found.items()}


def write_reply(reply: ScoreReply, version: str) -> bytes:
    """The body of an answer in a version of the protocol.

    Version 1 has one score, on the raw scale, under the name `raw_scores`.

    Raises:
        ValueError: for numbers that are not finite.
    """
    values: dict[str, Any] = {"protocol_version": version, "raw_scores": reply.scores}
    if reply.uncertainty is not None:
        values["uncertainty"] = reply.uncertainty
    if version != HOST_VERSION:
        values |= {
            "scores": reply.scores,
            "raw_scores": reply.raw_scores,
            "aspects": reply.aspects,
            "trajectory": reply.trajectory,
            "untrained_geometry": reply.untrained_geometry,
        }
    return json.dumps(values, allow_nan=False).encode()


def read_reply(body: bytes, clips: int, version: str) -> ScoreReply:
    """The scores in an answer of version 2.

    Args:
        body: any bytes.
        clips: how many clips were sent.
        version: the one that is spoken.

    Raises:
        MalformedError: for anything but one finite number per clip, everywhere.
    """
    values = read_json(body, "the answer")
    found = values.get("protocol_version") if isinstance(values, dict) else None
    if found != version:
        raise MalformedError(f"expected an answer of protocol version {version!r}, got {found!r}")
    aspects, steps = values.get("aspects"), values.get("trajectory")
    notes = values.get("untrained_geometry")
    if not isinstance(aspects, dict) or not _is_list(steps, clips) or not _is_list(notes, clips):
        raise MalformedError(f"expected aspects, and a trajectory and a note for {clips} clips")
    if not all(note is None or isinstance(note, str) for note in notes):
        raise MalformedError("`untrained_geometry` must hold texts and nulls")
    uncertainty = values.get("uncertainty")
    return ScoreReply(
        scores=_numbers(values.get("scores"), clips, "scores"),
        raw_scores=_numbers(values.get("raw_scores"), clips, "raw_scores"),
        aspects={name: _numbers(row, clips, name) for name, row in aspects.items()},
        trajectory=tuple(_numbers(row, None, "trajectory") for row in steps),
        untrained_geometry=tuple(notes),
        uncertainty=None if uncertainty is None else _numbers(uncertainty, clips, "uncertainty"),
    )


def _is_list(value: Any, length: int | None) -> bool:
    return isinstance(value, list) and (length is None or len(value) == length)


def _numbers(value: Any, length: int | None, name: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    if not _is_list(value, length):
        raise MalformedError(f"`{name}` must be a list of {length} numbers, one per clip")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int | float) or not math.isfinite(item):
            raise MalformedError(f"`{name}` has {item!r}, which is not a finite number")
    return tuple(float(item) for item in value)
