"""People's labels of videos: ratings of one, comparisons of two."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gtsvj_reward.annotations.aspects import AspectScale


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One video and its scores per aspect."""

    row: str
    """Which row of the file it is, for messages: a number, or the data set's own id."""
    video: str
    """The video as the data set names it: a path or a URL."""
    scores: Mapping[str, float]
    """Aspect -> label on the aspect's own scale; an aspect without a label is left out."""
    prompt: str | None = None
    """Prompt of the video."""
    model: str | None = None
    """Its generator."""
    group: str | None = None
    """Rows of one group stay together in splits and folds; None: no group."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two videos and which of them people preferred."""

    row: str
    """Which row of the file it is, for messages: a number, or the data set's own id."""
    video_a: str
    """The first video as the data set names it: a path or a URL."""
    video_b: str
    """The second video."""
    labels: Mapping[str, int]
    """Dimension (`overall`, `VQ`, ...) -> +1 if A is better, -1 if B is, 0 for the same; a
    dimension without a label is left out."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Dimension -> probability that A is better, 0..1, such as a share of votes, where that is
    known. `labels` then has the likelier side, 0 for one half (see `likelier_side`)."""
    weight: float = 1.0
    """How many comparisons the row counts as, in fits and where metrics weigh; above 0."""
    prompt: str | None = None
    """Prompt of the videos."""
    model_a: str | None = None
    """Generator of the first."""
    model_b: str | None = None
    """Generator of the second."""
    group: str | None = None
    """Rows of one group stay together in splits and folds; None: no group."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(
                f"{self.row}: the weight must be above 0 and finite, got {self.weight}"
            )
        for dimension, probability in self.probabilities.items():
            if not 0 <= probability <= 1:
                raise ValueError(
                    f"{self.row}: the probability of {dimension!r} must lie in 0..1, "
                    f"got {probability}"
                )
            if self.labels.get(dimension) != likelier_side(probability):
                raise ValueError(
                    f"{self.row}: {dimension!r} has the probability {probability:g} and the label "
                    f"{self.labels.get(dimension)}: expected the likelier side, "
                    f"{likelier_side(probability)}"
                )


def likelier_side(probability: float) -> int:
    """The label of a probability that A is better: +1 above one half, -1 below, 0 at it."""
    return (probability > 0.5) - (probability < 0.5)


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """A file of ratings."""

    name: str
    """Its name in results, e.g. `VisionRewardDB-Video train`."""
    rows: tuple[Rating, ...]
    """In the order of the file."""
    aspects: tuple[str, ...]
    """All aspects that the file can label, in the data set's order."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of labels that the format leaves out."""
    scales: tuple[AspectScale, ...] = ()
    """Range of each aspect, in the order of `aspects`; empty where the format fixes none."""

    def videos(self) -> tuple[str, ...]:
        """Each video once, in the order of its first row."""
        return tuple(dict.fromkeys(row.video for row in self.rows))


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """A file of comparisons."""

    name: str
    """Its name in results, e.g. `VideoGen-RewardBench`."""
    rows: tuple[Comparison, ...]
    """In the order of the file."""
    dimensions: tuple[str, ...]
    """All dimensions that the file can label, `overall` last where there is one."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of labels that the format leaves out."""

    def videos(self) -> tuple[str, ...]:
        """Each video once, in the order of its first row."""
        return tuple(
            dict.fromkeys(video for row in self.rows for video in (row.video_a, row.video_b))
        )
