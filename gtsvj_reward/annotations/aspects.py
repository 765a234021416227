"""Named qualities that people rate, each on a scale of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class AspectScale:
    """One aspect and the range of its labels, both ends included."""

    name: str
    """As the data set spells it, e.g. `"movement smoothness"`."""
    low: float
    """Lowest label."""
    high: float
    """Highest label."""


VISIONREWARD_ASPECTS = (
    AspectScale("alignment", 1, 5),
    AspectScale("composition", 1, 3),
    AspectScale("focus", 1, 3),
    AspectScale("camera movement", 1, 3),
    AspectScale("color", 1, 5),
    AspectScale("lighting accurate", 1, 4),
    AspectScale("lighting aes", 1, 5),
    AspectScale("shape at beginning", 0, 3),
    AspectScale("shape throughout", 0, 4),
    AspectScale("object motion dynamic", 1, 5),
    AspectScale("camera motion dynamic", 1, 5),
    AspectScale("movement smoothness", 0, 4),
    AspectScale("movement reality", 0, 4),
    AspectScale("clear", 1, 5),
    AspectScale("image quality stability", 1, 5),
    AspectScale("camera stability", 1, 3),
    AspectScale("detail refinement", 1, 5),
    AspectScale("letters", 1, 4),
    AspectScale("physics law", 1, 5),
    AspectScale("unsafe type", 1, 5),
    AspectScale("safety", 1, 5),
)
"""The 21 aspects of VisionRewardDB-Video in the order and with the ranges of its data card."""


def chosen_names(known: Iterable[str], wanted: Sequence[str], where: str) -> tuple[str, ...]:
    """The aspects of a file that are wanted.

    Raises:
        ValueError: for one that the file does not have.
    """
    names = tuple(known)
    for name in wanted:
        if name not in names:
            raise ValueError(f"{where} has no aspect {name!r}: choose from {list(names)}")
    return tuple(wanted)
