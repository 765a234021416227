"""Which columns of a table make a comparison."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gtsvj_reward.annotations.columns import check, identifiers, labels, optional_texts, videos
from gtsvj_reward.annotations.names import identity
from gtsvj_reward.annotations.records import Comparison, Comparisons
from gtsvj_reward.tables import Table


@dataclass(frozen=True, kw_only=True)
class ComparisonLayout:
    """The columns of a format of comparisons, all of which a file must have."""

    video_a: str
    """Column of the first video."""
    video_b: str
    """Column of the second video."""
    labels: Mapping[str, str]
    """Dimension -> its column, in the order in which results list them."""
    words: Mapping[str, int | None]
    """Word in lower case -> +1 (A), -1 (B), 0 (the same) or None (left out), as for `labels`."""
    prompt: str | None = None
    """Column of the prompt; None: there is none."""
    model_a: str | None = None
    """Column of what generated the first video; None: there is none."""
    model_b: str | None = None
    """Column of what generated the second video; None: there is none."""
    group: str | None = None
    """Column of the group; None: there is none."""
    hint: str = ""
    """What messages about other words add."""

    def read(self, table: Table, name: str) -> Comparisons:
        """Make comparisons of the rows of a table.

        Args:
            table: what to read.
            name: what results call it.

        Raises:
            ValueError: for a column that is missing, an invalid cell, or a video compared
                with itself; with rows and counts.
        """
        table.require([self.video_a, self.video_b, *self.labels.values()])
        first, second = table.column(self.video_a), table.column(self.video_b)
        video_a, video_b = videos(first), videos(second)
        check(
            second,
            [identity(a) == identity(b) for a, b in zip(video_a, video_b, strict=True)],
            f"name the same video as `{self.video_a}`, and a comparison needs two",
        )
        by_dimension = {
            dimension: labels(table.column(column), self.words, self.hint)
            for dimension, column in self.labels.items()
        }
        prompts = _texts(table, self.prompt)
        model_a, model_b = _texts(table, self.model_a), _texts(table, self.model_b)
        groups: list[str | None] = [None] * len(table.rows)
        if self.group is not None:
            groups = identifiers(table.column(self.group))
        rows = tuple(
            Comparison(
                row=row,
                video_a=video_a[index],
                video_b=video_b[index],
                labels={
                    dimension: label
                    for dimension, (column, _) in by_dimension.items()
                    if (label := column[index]) is not None
                },
                prompt=prompts[index],
                model_a=model_a[index],
                model_b=model_b[index],
                group=groups[index],
            )
            for index, row in enumerate(table.rows)
        )
        left_out = sum((counts for _, counts in by_dimension.values()), Counter[str]())
        return Comparisons(
            name=name, rows=rows, dimensions=tuple(self.labels), skipped=dict(left_out)
        )


def _texts(table: Table, column: str | None) -> list[str | None]:
    return [None] * len(table.rows) if column is None else optional_texts(table.column(column))
