"""Inputs of ranking: scores of videos, and their groups."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gtsvj_reward.annotations.columns import check, scores, texts, videos
from gtsvj_reward.annotations.names import identity
from gtsvj_reward.tables import Column, read_table

VIDEO, PROMPT = "video", "prompt"
"""Columns of a file of groups."""


def read_rewards(path: str | Path, column: str = "reward") -> dict[str, float]:
    """Video -> score of a table, such as `gtsvj score` or any other program writes.

    Args:
        path: CSV, JSONL, JSON or parquet with a column `video`.
        column: the column of scores.

    Raises:
        ValueError: for a missing column, an empty or non-finite score, or a video that comes twice;
            with counts and rows.
    """
    table = read_table(path)
    found = table.column(column)
    values = scores(found)
    check(
        found,
        [value is None for value in values],
        "are empty (a judge without statistics gives no `reward`: rank by `--column raw`)",
    )
    return dict(
        zip(_videos(table.column(VIDEO)), [v for v in values if v is not None], strict=True)
    )


def read_groups(path: str | Path, column: str = PROMPT) -> dict[str, str]:
    """Video -> prompt, or another text, of a table with the columns `video` and `prompt`.

    Args:
        path: the table.
        column: the column of texts.

    Raises:
        ValueError: for a missing column, an empty cell, or a video that comes twice; with rows.
    """
    table = read_table(path)
    prompts = texts(table.column(column))
    return dict(zip(_videos(table.column(VIDEO)), prompts, strict=True))


def read_several(path: str | Path) -> dict[str, list[str]]:
    """Video -> prompts, from a table where a video may have several rows.

    Raises:
        ValueError: for a missing column, an empty cell, or a row that comes twice; with rows.
    """
    table = read_table(path)
    column = table.column(PROMPT)
    rows = list(zip(videos(table.column(VIDEO)), texts(column), strict=True))
    counts = Counter(rows)
    check(column, [counts[row] > 1 for row in rows], "repeat a row: keep one of each")
    found: dict[str, list[str]] = {}
    for video, prompt in rows:
        found.setdefault(video, []).append(prompt)
    return found


def folder_groups(videos: Sequence[str]) -> dict[str, str]:
    """Video -> the first folder of its path.

    Raises:
        ValueError: for videos that are in no folder, with their number and the first.
    """
    folders = {video: identity(video).parts[:-1] for video in videos}
    loose = [video for video in videos if not folders[video]]
    if loose:
        raise ValueError(
            f"{len(loose)} of {len(videos)} videos are in no folder that could group them, the "
            f"first is {loose[0]!r}: put the videos of one prompt in one folder, or pass --groups"
        )
    return {video: folders[video][0] for video in videos}


def _videos(column: Column) -> list[str]:
    """Names of videos, all different."""
    names = videos(column)
    same = [identity(name) for name in names]
    counts = Counter(same)
    check(column, [counts[who] > 1 for who in same], "repeat a video: keep one row of each")
    return names
