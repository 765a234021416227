"""A file of labels in two: rows to train on, and rows held out, with no clip on both sides."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gtsvj_reward.annotations import (
    Comparison,
    Comparisons,
    Rating,
    Ratings,
    find_clips,
    keep_found_comparisons,
    keep_found_ratings,
    write_comparisons,
    write_ratings,
)
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import SplitSettings
from gtsvj_reward.training.labelled import report_left_out
from gtsvj_reward.training.splits import hold_out


def split_labels(
    labels: Comparisons | Ratings,
    latents: LatentFolder,
    args: SplitSettings,
    *,
    allow_missing: bool = False,
    suffix: str = ".csv",
) -> dict[Path, int]:
    """Write `train` and `held_out` into `args.output_dir`, in the plain format.

    As in training, what is one clip is decided by source and content, and clips of one group (the
    column `group`, or `args.group_by`) stay together.

    Args:
        labels: the file.
        latents: the clips that it is about.
        args: where to, how much is held out, what makes a group, and the seed.
        allow_missing: leave out rows of clips without latents, with a warning that counts them.
        suffix: `.csv` or `.jsonl`.

    Returns:
        Both files, each with its number of rows.

    Raises:
        ValueError: if clips are missing or all rows are connected, and what the writers refuse.
    """
    found = find_clips(labels.videos(), latents, allow_missing=allow_missing)
    kept: Comparisons | Ratings
    if isinstance(labels, Comparisons):
        kept, left_out = keep_found_comparisons(labels, found)
    else:
        kept, left_out = keep_found_ratings(labels, found)
    report_left_out(labels.name, len(kept.rows), left_out, labels.skipped)

    def clips(row: Comparison | Rating) -> Sequence[ClipInfo]:
        videos = (row.video,) if isinstance(row, Rating) else (row.video_a, row.video_b)
        return [found.clips[video] for video in videos]

    parts = hold_out(
        list[Comparison | Rating](kept.rows),
        None,
        clips,
        count=max(1, math.ceil(args.held_out_fraction * len(kept.rows))),
        args=args,
        setting="more labels",
        group=lambda row: row.group,
    )
    files = {}
    for name, part in zip(("train", "held_out"), parts, strict=True):
        file = Path(args.output_dir) / f"{name}{suffix}"
        files[file] = len(part)
        chosen = {row.row for row in part}
        if isinstance(kept, Comparisons):
            pairs = tuple(row for row in kept.rows if row.row in chosen)
            write_comparisons(file, replace(kept, rows=pairs))
        else:
            rated = tuple(row for row in kept.rows if row.row in chosen)
            write_ratings(file, replace(kept, rows=rated))
    return files
