"""The server's answers: JSON, whose numbers are the judge's own to the last bit."""

import json
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch

from gtsvj_reward.latents.json_types import from_values
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
        numbers = partial(torch.tensor, dtype=torch.float32)
        return RewardOutput(
            rewards=numbers(self.scores),
            raw=numbers(self.raw_scores),
            trajectory=[numbers(steps) for steps in self.trajectory],
            parts={name: numbers(scores) for name, scores in self.aspects.items()},
            notes=self.untrained_geometry,
            uncertainty=None if self.uncertainty is None else numbers(self.uncertainty),
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
    given = {item.name: values.get(item.name) for item in fields(ScoreReply)}
    try:
        reply = from_values(ScoreReply, given)
    except ValueError as error:
        raise MalformedError(f"invalid answer: {error}") from error
    rows = [reply.scores, reply.raw_scores, reply.trajectory, reply.untrained_geometry]
    rows += [*reply.aspects.values(), *(() if reply.uncertainty is None else (reply.uncertainty,))]
    if any(len(row) != clips for row in rows):
        raise MalformedError(f"expected {clips} entries, one per clip, in every list")
    return reply
