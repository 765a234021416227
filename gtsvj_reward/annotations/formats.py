"""Formats of annotations by the names that commands use."""

from collections.abc import Callable, Sequence
from pathlib import Path

from gtsvj_reward.annotations.genai_bench import read_genai_bench
from gtsvj_reward.annotations.plain import read_comparisons, read_ratings
from gtsvj_reward.annotations.rankings import read_rankings
from gtsvj_reward.annotations.records import Comparisons, Ratings
from gtsvj_reward.annotations.videodpo import read_videodpo
from gtsvj_reward.annotations.videofeedback import read_videofeedback, read_videofeedback2
from gtsvj_reward.annotations.videogen_rewardbench import (
    read_videogen_rewardbench,
    read_videoreward_comparisons,
    read_videoreward_ratings,
)
from gtsvj_reward.annotations.visionreward import (
    read_monetbench,
    read_visionreward_comparisons,
    read_visionreward_ratings,
)
from gtsvj_reward.annotations.vote_fractions import read_datapoint, read_rapidata

RATING_FORMATS: dict[str, Callable[..., Ratings]] = {
    "visionreward": read_visionreward_ratings,
    "videoreward-train": read_videoreward_ratings,
    "videofeedback": read_videofeedback,
    "videofeedback2": read_videofeedback2,
    "plain": read_ratings,
}
"""Name -> what reads a file of ratings, all of its aspects or some: `aspects=`."""

COMPARISON_FORMATS: dict[str, Callable[[str | Path], Comparisons]] = {
    "visionreward": read_visionreward_comparisons,
    "monetbench": read_monetbench,
    "videogen-rewardbench": read_videogen_rewardbench,
    "videoreward-train": read_videoreward_comparisons,
    "genai-bench": read_genai_bench,
    "rapidata": read_rapidata,
    "datapoint": read_datapoint,
    "rankings": read_rankings,
    "videodpo": read_videodpo,
    "plain": read_comparisons,
}
"""Name -> what reads a file of comparisons."""


def read_labelled_comparisons(
    path: str | Path, name: str, labels: Sequence[str] | None
) -> Comparisons:
    """Read a file of comparisons in a format of `COMPARISON_FORMATS`.

    Args:
        path: what to read.
        name: the format.
        labels: of the plain format, what words mean: `0=B`, `0.5=tie`.

    Raises:
        ValueError: for `labels` with another format or of another form, and as the reader.
    """
    if not labels:
        return COMPARISON_FORMATS[name](path)
    if name != "plain":
        raise ValueError(f"--labels is for files in the plain format, {name} has labels of its own")
    meanings = {}
    for text in labels:
        label, equals, meaning = text.partition("=")
        if not equals or label in meanings:
            raise ValueError(f"--labels takes LABEL=A, LABEL=B or LABEL=tie, got {text!r}")
        meanings[label] = meaning
    return read_comparisons(path, labels=meanings)
