"""The judges of one server: by name, on one base, replaced while they are served."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.serving.refusals import NotScoredError

DEFAULT = "default"
"""Name of the judge that answers where none is named."""


@dataclass(eq=False)
class ServedJudge:
    """A judge under a name."""

    name: str
    reward: GTSVJReward
    load: Callable[[], GTSVJReward] | None = None
    """Loads its checkpoint again; None where that cannot be done."""
    loads: int = 1
    """How often it was loaded."""

    def describe(self) -> dict[str, Any]:
        """Its description in `/healthz`."""
        config = self.reward.config
        return {
            "stage": config.stage,
            "latent_space": config.latent_space.to_dict(),
            "aspects": [aspect.name for aspect in config.aspects],
            "text_input": config.text_input,
            "image_input": config.image_input,
            "uncertainty": self.reward.noise is not None,
            "loads": self.loads,
        }


class Judges:
    """The judges of a server.

    Args:
        judges: name -> judge.

    Raises:
        ValueError: if none is the default one, or a name could not be part of a URL.
    """

    def __init__(self, judges: Iterable[ServedJudge]) -> None:
        self.named = {judge.name: judge for judge in judges}
        check_names(self.named)

    @property
    def default(self) -> ServedJudge:
        """The one that answers where none is named."""
        return self.named[DEFAULT]

    def rewards(self) -> list[GTSVJReward]:
        """All of them as they are now."""
        return [judge.reward for judge in self.named.values()]

    def find(self, name: str) -> ServedJudge:
        """A judge by name.

        Raises:
            NotScoredError: 422 for a name that none has, listing all.
        """
        if name not in self.named:
            there = ", ".join(self.named)
            raise NotScoredError(422, f"unknown judge {name[:80]!r}: expected one of {there}")
        return self.named[name]


def check_names(names: Iterable[str]) -> None:
    """Refuse names of judges that cannot be part of a URL."""
    found = list(names)
    if DEFAULT not in found:
        raise ValueError(f"one judge must be named {DEFAULT!r}, got {found}")
    for name in found:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name):
            raise ValueError(f"a judge's name has letters, digits, `_`, `.` and `-`, got {name!r}")


def share_base(judge: VideoJudge, others: Iterable[VideoJudge]) -> int:
    """Replace a judge's weights by equal ones of other judges.

    Only frozen base weights are shared, tensor by tensor, where name, type and all values are the
    same; adapters and heads are each judge's own.

    Args:
        judge: on the CPU, so that its base is never twice on another device.
        others: judges that are served already.

    Returns:
        Bytes that the judge no longer holds itself.
    """
    held: dict[str, list[Tensor]] = {}
    for other in others:
        for name, tensor in other.backbone.base_tensors():
            held.setdefault(name, []).append(tensor)
    saved = 0
    for name, tensor in judge.backbone.base_tensors():
        twins: Iterable[Tensor] = held.get(name, ())
        twin = next((twin for twin in twins if is_same(tensor, twin)), None)
        if twin is not None:
            tensor.data = twin.data
            saved += twin.numel() * twin.element_size()
    return saved


def is_same(tensor: Tensor, twin: Tensor) -> bool:
    """Whether two tensors have one type, shape and values, wherever they are."""
    alike = tensor.dtype == twin.dtype and tensor.shape == twin.shape
    return alike and torch.equal(tensor.to(twin.device), twin)


def as_judges(
    reward: GTSVJReward, judges: Mapping[str, GTSVJReward], loaders: Mapping[str, Any]
) -> Judges:
    """Judges of rewards in memory.

    Args:
        reward: the default one.
        judges: name -> any others.
        loaders: name -> what loads it again, for those that can be reloaded.
    """
    named = {DEFAULT: reward, **judges}
    return Judges(ServedJudge(name, one, loaders.get(name)) for name, one in named.items())
