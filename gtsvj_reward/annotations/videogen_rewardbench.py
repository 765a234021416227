"""VideoGen-RewardBench, and training files of its kind (VideoReward): CSV with several labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gtsvj_reward.annotations.aspects import chosen_names
from gtsvj_reward.annotations.columns import optional_texts, scores, videos
from gtsvj_reward.annotations.layout import ComparisonLayout
from gtsvj_reward.annotations.names import Identity, identity
from gtsvj_reward.annotations.records import Comparisons, Rating, Ratings
from gtsvj_reward.tables import Table, first_few, read_table

_DIMENSIONS = {"VQ": "VQ", "MQ": "MQ", "TA": "TA"}
_OVERALL = {"overall": "Overall"}
_WORDS = {"a": 1, "b": -1, "same": 0, "invalid": None}


def read_videogen_rewardbench(path: str | Path) -> Comparisons:
    """Read `videogen-rewardbench.csv`: dimensions VQ, MQ, TA (text alignment) and `overall`.

    A label of `invalid` is left out of its dimension and counted.

    Raises:
        ValueError: for a missing column, or a label other than A, B, same and invalid, empty cells
            included; with rows and counts.
    """
    layout = ComparisonLayout(
        video_a="path_A",
        video_b="path_B",
        labels={**_DIMENSIONS, **_OVERALL},
        words=_WORDS,
        prompt="prompt",
        model_a="A_model",
        model_b="B_model",
    )
    return layout.read(read_table(path), "VideoGen-RewardBench")


def read_videoreward_comparisons(path: str | Path) -> Comparisons:
    """Read the comparisons of a training file as VideoReward's: VQ, MQ, TA.

    `Overall`, `A_model` and `B_model` are read where the file has them.

    Raises:
        ValueError: as `read_videogen_rewardbench`.
    """
    table = read_table(path)
    layout = ComparisonLayout(
        video_a="path_A",
        video_b="path_B",
        labels={**_DIMENSIONS, **(_OVERALL if "Overall" in table.cells else {})},
        words=_WORDS,
        prompt="prompt",
        model_a="A_model" if "A_model" in table.cells else None,
        model_b="B_model" if "B_model" in table.cells else None,
    )
    return layout.read(table, f"VideoReward training data {table.path.name}")


def read_videoreward_ratings(path: str | Path, *, aspects: Sequence[str] | None = None) -> Ratings:
    """Read the mean opinion scores of a training file as VideoReward's.

    They are in `MOS_A_<dimension>` and `MOS_B_<dimension>`, so that each row rates two videos. A
    video in several rows with one prompt becomes one rating, called by the first; a score that is 0
    or empty is missing: it is left out and counted. Scores stay as they are (the original training
    code subtracts 3).

    Args:
        path: what to read.
        aspects: dimensions to read; None: all of the file.

    Raises:
        ValueError: for a missing column, a file without such scores, a cell that is not a number,
            or two different scores of one video in one dimension; with rows and counts.
    """
    table = read_table(path)
    rated = _rated_dimensions(table)
    names = rated if aspects is None else chosen_names(rated, aspects, table.path.name)
    skipped: Counter[str] = Counter()
    first = _read_side(table, "A", names, skipped)
    second = _read_side(table, "B", names, skipped)
    in_order = [rating for pair in zip(first, second, strict=True) for rating in pair]
    return Ratings(
        name=f"VideoReward training data {table.path.name}",
        rows=_merged(table.path, in_order, names, skipped),
        aspects=names,
        skipped=dict(+skipped),
    )


def _rated_dimensions(table: Table) -> tuple[str, ...]:
    names = [name.removeprefix("MOS_A_") for name in table.cells if name.startswith("MOS_A_")]
    names += [name.removeprefix("MOS_B_") for name in table.cells if name.startswith("MOS_B_")]
    dimensions = tuple(dict.fromkeys(names))
    if not dimensions:
        table.require(["MOS_A_VQ"])
    table.require([f"MOS_{side}_{dimension}" for dimension in dimensions for side in "AB"])
    return dimensions


def _read_side(
    table: Table, side: str, aspects: tuple[str, ...], skipped: Counter[str]
) -> list[Rating]:
    """Ratings of the A or B videos, one for each row; counts what is left out."""
    table.require([f"path_{side}", "prompt"])
    names = videos(table.column(f"path_{side}"))
    prompts = optional_texts(table.column("prompt"))
    has_model = f"{side}_model" in table.cells
    models = optional_texts(table.column(f"{side}_model")) if has_model else [None] * len(names)
    labels = {}
    for aspect in aspects:
        values = scores(table.column(f"MOS_{side}_{aspect}"))
        skipped[f"`MOS_{side}_{aspect}` is empty"] = values.count(None)
        skipped[f"`MOS_{side}_{aspect}` is 0"] = values.count(0.0)
        labels[aspect] = values
    return [
        Rating(
            row=f"{row} {side}",
            video=names[index],
            scores={aspect: value for aspect in aspects if (value := labels[aspect][index])},
            prompt=prompts[index],
            model=models[index],
        )
        for index, row in enumerate(table.rows)
    ]


def _merged(
    path: Path, ratings: list[Rating], aspects: tuple[str, ...], skipped: Counter[str]
) -> tuple[Rating, ...]:
    """One rating for each video and prompt, with all its scores; counts repeated scores."""
    merged: dict[tuple[Identity, str | None], Rating] = {}
    conflicts = []
    for rating in ratings:
        key = (identity(rating.video), rating.prompt)
        first = merged.setdefault(key, rating)
        if first is rating:
            continue
        shared = [aspect for aspect in aspects if aspect in first.scores.keys() & rating.scores]
        conflicts += [
            f"`{aspect}` of {rating.video} is {first.scores[aspect]:g} in {first.row} and "
            f"{rating.scores[aspect]:g} in {rating.row}"
            for aspect in shared
            if first.scores[aspect] != rating.scores[aspect]
        ]
        skipped["the same score of the same video again"] += len(shared)
        scores_of_both = {**rating.scores, **first.scores}
        in_order = {name: scores_of_both[name] for name in aspects if name in scores_of_both}
        merged[key] = replace(first, scores=in_order)
    if conflicts:
        raise ValueError(
            f"{path} rates a video differently than before {len(conflicts)} times: "
            f"{first_few(conflicts)}"
        )
    return tuple(merged.values())
