"""Which columns of a table make a comparison, or a rating."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gtsvj_reward.annotations.aspects import AspectScale
from gtsvj_reward.annotations.columns import (
    check,
    identifiers,
    labels,
    optional_texts,
    scores,
    videos,
)
from gtsvj_reward.annotations.names import identity
from gtsvj_reward.annotations.records import Comparison, Comparisons, Rating, Ratings, likelier_side
from gtsvj_reward.tables import Table

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class ComparisonLayout:
    """The columns of a format of comparisons, all of which a file must have."""

    video_a: str
    """Column of the first video."""
    video_b: str
    """Column of the second video."""
    labels: Mapping[str, str]
    """Dimension -> its column, in the order of results."""
    words: Mapping[str, int | None]
    """Word in lower case -> +1 (A), -1 (B), 0 (the same) or None (left out), as for `labels`."""
    probabilities: Mapping[str, str] = field(default_factory=dict)
    """Dimension -> column of the probability that A is better; one may be in `labels` too."""
    weight: str | None = None
    """Column of what a row counts as; None: each counts once."""
    prompt: str | None = None
    """Column of the prompt; None: there is none."""
    model_a: str | None = None
    """Column of what generated the first video; None: there is none."""
    model_b: str | None = None
    """Column of what generated the second video; None: there is none."""
    group: str | None = None
    """Column of the group; None: there is none."""
    hint: str = ""
    """Added to messages about other words."""

    def read(self, table: Table, name: str) -> Comparisons:
        """Make comparisons of the rows of a table.

        Raises:
            ValueError: for a column that is missing, an invalid cell, or a video compared
                with itself; with rows and counts.
        """
        columns = [*self.labels.values(), *self.probabilities.values()]
        table.require([self.video_a, self.video_b, *columns])
        first, second = table.column(self.video_a), table.column(self.video_b)
        video_a, video_b = videos(first), videos(second)
        check(
            second,
            [identity(a) == identity(b) for a, b in zip(video_a, video_b, strict=True)],
            f"name the same video as `{self.video_a}`, and a comparison needs two",
        )
        sides, shares, left_out = self._labels(table)
        weights = _weights(table, self.weight)
        prompts = texts_of(table, self.prompt)
        model_a, model_b = texts_of(table, self.model_a), texts_of(table, self.model_b)
        groups = _groups(table, self.group)
        rows = tuple(
            Comparison(
                row=row,
                video_a=video_a[index],
                video_b=video_b[index],
                labels=_of_row(sides, index),
                probabilities=_of_row(shares, index),
                weight=weights[index],
                prompt=prompts[index],
                model_a=model_a[index],
                model_b=model_b[index],
                group=groups[index],
            )
            for index, row in enumerate(table.rows)
        )
        dimensions = dict.fromkeys([*self.labels, *self.probabilities])
        return Comparisons(
            name=name,
            rows=rows,
            dimensions=tuple(sorted(dimensions, key=lambda dimension: dimension == "overall")),
            skipped=dict(+left_out),
        )

    def _labels(
        self, table: Table
    ) -> tuple[dict[str, list[int | None]], dict[str, list[float | None]], Counter[str]]:
        """By dimension: the side of each row and its probability; and what is left out, by reason.

        Raises:
            ValueError: for an invalid cell, or a row with a label and a probability.
        """
        sides: dict[str, list[int | None]] = {}
        shares: dict[str, list[float | None]] = {}
        left_out: Counter[str] = Counter()
        for dimension, name in self.labels.items():
            sides[dimension], without = labels(table.column(name), self.words, self.hint)
            left_out += without
        for dimension, name in self.probabilities.items():
            column = table.column(name)
            found = shares[dimension] = scores(column, AspectScale(name, 0, 1))
            said = sides.setdefault(dimension, [None] * len(found))
            check(
                column,
                [a is not None and b is not None for a, b in zip(said, found, strict=True)],
                "are given with a label: a row has one or the other",
            )
            known = sum(share is not None for share in found)
            if dimension in self.labels:
                left_out[f"`{self.labels[dimension]}` is empty"] -= known
            else:
                left_out[f"`{name}` is empty"] += len(found) - known
            sides[dimension] = [
                side if share is None else likelier_side(share)
                for side, share in zip(said, found, strict=True)
            ]
        return sides, shares, left_out


def ratings_of(
    table: Table,
    name: str,
    labels: Mapping[str, Sequence[float | None]],
    *,
    video: str,
    skipped: Mapping[str, int],
    scales: Sequence[AspectScale] = (),
    prompt: str | None = None,
    model: str | None = None,
    group: str | None = None,
) -> Ratings:
    """Ratings of the rows of a table.

    Args:
        table: what was read.
        name: what results call it.
        labels: aspect -> a number for each row, or None.
        video: column of the videos.
        skipped: reason -> labels that are left out.
        scales: of the aspects, where the format says them.
        prompt: column of the prompts; None: there is none.
        model: column of what generated the videos; None: there is none.
        group: column of the groups; None: there is none.
    """
    names = videos(table.column(video))
    prompts, models, groups = texts_of(table, prompt), texts_of(table, model), _groups(table, group)
    rows = tuple(
        Rating(
            row=row,
            video=names[index],
            scores=_of_row(labels, index),
            prompt=prompts[index],
            model=models[index],
            group=groups[index],
        )
        for index, row in enumerate(table.rows)
    )
    return Ratings(
        name=name,
        rows=rows,
        aspects=tuple(labels),
        skipped={reason: count for reason, count in skipped.items() if count > 0},
        scales=tuple(scales),
    )


def _of_row(columns: Mapping[str, Sequence[Value | None]], index: int) -> dict[str, Value]:
    """What the columns have in one row, where they have anything."""
    return {name: cell for name, cells in columns.items() if (cell := cells[index]) is not None}


def _weights(table: Table, name: str | None) -> list[float]:
    if name is None:
        return [1.0] * len(table.rows)
    column = table.column(name)
    weights = scores(column)
    check(column, [weight is None or weight <= 0 for weight in weights], "are not above 0")
    return [weight or 1.0 for weight in weights]


def _groups(table: Table, column: str | None) -> list[str | None]:
    return [None] * len(table.rows) if column is None else identifiers(table.column(column))


def texts_of(table: Table, column: str | None) -> list[str | None]:
    """Texts of a column; None for all rows without one."""
    return [None] * len(table.rows) if column is None else optional_texts(table.column(column))
