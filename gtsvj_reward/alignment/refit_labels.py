"""Labels that a judge is refitted to: tables as `gtsvj label` writes them, read anew each time."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.pairs import latent_files
from gtsvj_reward.annotations import Comparison, Rating, read_labelled_comparisons, read_ratings
from gtsvj_reward.files import file_sha256
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.judge.settings import Stage
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.latents.store import ClipInfo, clip_info
from gtsvj_reward.losses import PairLoss, rao_kupper_loss
from gtsvj_reward.training.closed_form import Compared, Rated
from gtsvj_reward.training.closed_form.showing import Showing
from gtsvj_reward.training.processes import from_main

logger = logging.getLogger(__name__)

T = TypeVar("T")

DIMENSION = "overall"
"""Which label of a comparison counts."""
TIE_THRESHOLD = math.log(2)
"""Of Rao and Kupper's model, in logits, as in `gtsvj label`: equal clips tie one time in three."""


@dataclass(frozen=True)
class Labels:
    """Labels of clips so far."""

    comparisons: tuple[Compared, ...] = ()
    ratings: tuple[Rated, ...] = ()
    files: Mapping[str, str] | None = None
    """Each table that was read, and its SHA-256."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Table and reason -> labels or rows of it that do not count."""

    @property
    def loss(self) -> PairLoss:
        """Of a comparison."""
        return partial(rao_kupper_loss, threshold=TIE_THRESHOLD)

    @property
    def stage(self) -> Stage:
        """That a judge reaches with them."""
        if self.comparisons:
            return "preference"
        return "aspects" if self.ratings else "discriminator"

    def record(self) -> dict[str, object]:
        """How many there are and where they came from, for JSON."""
        return {
            "comparisons": len(self.comparisons),
            "ratings": len(self.ratings),
            "labels": dict(self.files or {}),
            "left out": dict(self.left_out),
        }


@dataclass(frozen=True)
class Tables:
    """Rows of the tables that count, as one process has read them."""

    comparisons: tuple[Comparison, ...]
    ratings: tuple[Rating, ...]
    files: Mapping[str, str]
    """See `Labels`, as for `left_out`."""
    left_out: Mapping[str, int]


def check_files(arguments: AlignArguments) -> None:
    """Reject settings of refits that name what is not there, before anything is sampled.

    Raises:
        FileNotFoundError: naming the setting.
    """
    given = {
        "refit_positives": arguments.refit_positives,
        "refit_comparisons": arguments.refit_comparisons,
        "refit_ratings": arguments.refit_ratings,
        "refit_latents": arguments.refit_latents,
    }
    for name, path in given.items():
        if path is not None and not Path(path).exists():
            raise FileNotFoundError(
                f"`{name}`: {path} does not exist. Correct the path; labels may also be given "
                "later, when the run goes on"
            )


def read_labels(arguments: AlignArguments, config: JudgeConfig) -> Labels:
    """Labels of `refit_comparisons` and `refit_ratings` as they are now.

    What does not count is left out with a warning: comparisons without the label `overall`, and
    empty cells of ratings. The main process reads the tables for all: a label may be added at any
    time. A judge that reads prompts sees each clip under the prompt stored beside its latents.

    Raises:
        FileNotFoundError: if a table is not there.
        ValueError: for labels of clips that have no latents in `refit_latents`, comparisons of
            which none has the label `overall`, and ratings for a judge without aspects.
        LatentSpaceError: for labelled clips of another space than the judge's.
        PromptStoreError: for a judge that reads prompts, and clips that have none stored.
    """
    tables = from_main(lambda: read_tables(arguments, config))
    videos = {v for row in tables.comparisons for v in (row.video_a, row.video_b)}
    videos |= {row.video for row in tables.ratings}
    if not videos:
        return Labels()
    files = latent_files(videos, str(arguments.refit_latents))
    infos = {name: clip_info(path) for name, path in files.items()}
    (space, *_) = (info.space for info in infos.values())  # a folder has one
    if not config.latent_space.same_latents(space):
        raise LatentSpaceError(
            f"the judge scores latents of {config.latent_space.title()}, the clips of "
            f"`refit_latents` are of {space.title()}: encode them anew with the VAE of the judge"
        )
    showing = Showing(config, list(infos.values()), seed=arguments.seed)
    return Labels(
        comparisons_of(tables.comparisons, infos, showing),
        ratings_of(tables.ratings, infos, showing),
        tables.files,
        tables.left_out,
    )


def read_tables(arguments: AlignArguments, config: JudgeConfig) -> Tables:
    """The tables of `read_labels`, in this process alone."""
    compared: tuple[Comparison, ...] = ()
    rated: tuple[Rating, ...] = ()
    left_out: dict[str, int] = {}
    files: dict[str, str] = {}
    if arguments.refit_comparisons is not None:
        table = arguments.refit_comparisons
        (compared, bare), files[table] = hashed(table, labelled)
        if bare:
            left_out[f"{arguments.refit_comparisons}: no label {DIMENSION!r}"] = bare
    if arguments.refit_ratings is not None:
        if not config.aspects:
            raise ValueError(
                "`refit_ratings` needs a judge with aspects, whose scales the ratings have: give "
                "one that was fitted to ratings, or `refit_comparisons`"
            )
        names, table = [a.name for a in config.aspects], arguments.refit_ratings
        ratings, files[table] = hashed(table, partial(read_ratings, aspects=names))
        rated = ratings.rows
        for reason, count in ratings.skipped.items():
            left_out[f"{arguments.refit_ratings}: {reason}"] = count
    for reason, count in left_out.items():
        logger.warning("%s: %d rows left out of the refit", reason, count)
    return Tables(compared, rated, files, left_out)


def hashed(path: str, read: Callable[[str], T]) -> tuple[T, str]:
    """What a file says and its SHA-256; read again if it was saved in between."""
    while True:
        before, found = file_sha256(Path(path)), read(path)
        if file_sha256(Path(path)) == before:
            return found, before


def labelled(path: str) -> tuple[tuple[Comparison, ...], int]:
    """Comparisons of a table that have the label that counts, and how many have not.

    Raises:
        ValueError: if there are comparisons, and none of them has it.
    """
    found = read_labelled_comparisons(path, "plain", None)
    rows = tuple(row for row in found.rows if DIMENSION in row.labels)
    if found.rows and not rows:
        raise ValueError(
            f"none of {len(found.rows)} comparisons of {path} has the label {DIMENSION!r}, which "
            f"counts in a refit; the table has {list(found.dimensions)}: write it to `label`"
        )
    return rows, len(found.rows) - len(rows)


def comparisons_of(
    rows: Sequence[Comparison], infos: Mapping[str, ClipInfo], showing: Showing
) -> tuple[Compared, ...]:
    """Compared clips; those of one prompt or group are left out together."""
    groups = groups_of([row.group or row.prompt for row in rows])
    return tuple(
        Compared(
            *showing.pair(number, infos[row.video_a], infos[row.video_b]),
            row.labels[DIMENSION],
            (group, group),
            row.probabilities.get(DIMENSION),
            row.weight,
        )
        for number, (row, group) in enumerate(zip(rows, groups, strict=True))
    )


def ratings_of(
    rows: Sequence[Rating], infos: Mapping[str, ClipInfo], showing: Showing
) -> tuple[Rated, ...]:
    """Rated clips, likewise."""
    groups = groups_of([row.group or row.prompt for row in rows])
    loads = showing.some([infos[row.video] for row in rows])
    return tuple(
        Rated(load, row.scores, group) for load, row, group in zip(loads, rows, groups, strict=True)
    )


def groups_of(names: Sequence[str | None]) -> list[str]:
    """The group of each row; a row of its own for those without a name, or if all have one name."""
    alone = len(set(names)) == 1
    return [
        f"row {index}" if name is None or alone else f"group {name}"
        for index, name in enumerate(names)
    ]
