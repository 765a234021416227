"""Sets that are rows, with the rankings of several people in a cell."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gtsvj_reward.annotations.columns import check, videos as video_cells
from gtsvj_reward.annotations.layout import texts_of
from gtsvj_reward.annotations.rankings import RankedSet, Ranking, comparisons_of
from gtsvj_reward.annotations.records import Comparisons
from gtsvj_reward.tables import Column, first_few, read_table


def read_ranked_sets(
    path: str | Path,
    rankings: Mapping[str, str],
    *,
    holds: Literal["ranks", "order"],
    videos: Sequence[str],
    models: Sequence[str] | None = None,
    prompt: str | None = "prompt",
) -> Comparisons:
    """Read sets that are rows, such as Datapoint AI's text-to-video rankings.

    According to its data card, 15 people ranked five videos per prompt in three dimensions; no
    public file shows the columns: name them. Pairs and weights are those of `read_rankings`.

    Args:
        path: a parquet file, or the same rows as JSON or JSONL.
        rankings: dimension -> column; a cell is a list of rankings, one for each person, or the
            JSON text of it.
        holds: what a ranking is. `ranks`: the rank of each video in the order of `videos`, 1 the
            best. `order`: numbers of the videos, from 1, the best first.
        videos: columns that name the videos of a set.
        models: columns of what generated them; None: not read.
        prompt: column of the prompt; None: not read.

    Raises:
        ValueError: for a missing column, or a ranking that does not hold each of 1 to the number of
            videos once; with counts.
    """
    table = read_table(path)
    names = [video_cells(table.column(name)) for name in videos]
    columns: Sequence[str | None] = models or [None] * len(videos)
    generators = [texts_of(table, name) for name in columns]
    if len(generators) != len(names):
        raise ValueError(f"{len(videos)} columns of videos, but {len(generators)} of models")
    prompts = texts_of(table, prompt)
    votes = {
        dimension: _rankings(table.column(name), len(videos), holds)
        for dimension, name in rankings.items()
    }
    sets = []
    for index, row in enumerate(table.rows):
        rated = {dimension: cells[index] for dimension, cells in votes.items()}
        ranked = RankedSet(name=row, prompt=prompts[index], rankings=rated)
        for column, models_of in zip(names, generators, strict=True):
            ranked.add(column[index], models_of[index])
        sets.append(ranked)
    repeated = [ranked.name for ranked in sets if len(ranked.videos) < len(names)]
    if repeated:
        raise ValueError(
            f"{path}: {len(repeated)} of {len(sets)} sets name a video twice: {first_few(repeated)}"
        )
    return comparisons_of(table.path.name, sets, tuple(rankings), Counter())


def _rankings(column: Column, count: int, holds: str) -> list[list[Ranking]]:
    """The rankings of each set."""
    cells = [_lists(cell) for cell in column.cells]
    wanted = list(range(1, count + 1))
    check(
        column,
        [cell is None or any(sorted(ranking) != wanted for ranking in cell) for cell in cells],
        f"are not lists of rankings with each of 1 to {count} once",
    )
    return [[_ranking(ranking, holds) for ranking in cell or ()] for cell in cells]


def _lists(cell: Any) -> list[list[int]] | None:
    """A list of lists of whole numbers; None for anything else."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    sound = isinstance(cell, list) and all(
        isinstance(ranking, list) and all(type(number) is int for number in ranking)
        for ranking in cell
    )
    return cell if sound else None


def _ranking(numbers: Sequence[int], holds: str) -> Ranking:
    if holds == "ranks":
        return dict(enumerate(numbers))
    return {number - 1: rank for rank, number in enumerate(numbers, 1)}
