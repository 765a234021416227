"""From a file of comparisons and a folder of latents to compared clips."""

import logging
from collections.abc import Sequence

from gtsvj_reward.annotations import (
    COMPARISON_FORMATS,
    find_clips,
    keep_found_comparisons,
)
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.training.labelled import chosen_reader, report_left_out
from gtsvj_reward.training.preference.data import ClipPair
from gtsvj_reward.training.preference.settings import PreferenceConfig

logger = logging.getLogger(__name__)


def compared_clips(path: str, folder: LatentFolder, args: PreferenceConfig) -> list[ClipPair]:
    """Pairs with a label in the dimension to train on, whose clips have latents.

    Raises:
        ValueError: for an unknown format or dimension, or pairs without latents unless they are
            allowed.
    """
    read = chosen_reader(COMPARISON_FORMATS, args.comparisons_format, "comparisons_format")
    comparisons = read(path)
    if args.dimension not in comparisons.dimensions:
        raise ValueError(
            f"{path} has no dimension {args.dimension!r}: choose one of {comparisons.dimensions}"
        )
    found = find_clips(comparisons.videos(), folder, allow_missing=args.allow_missing_videos)
    kept, left_out = keep_found_comparisons(comparisons, found)
    report_left_out(path, len(kept.rows), left_out, comparisons.skipped)
    pairs = [
        ClipPair(
            found.clips[row.video_a],
            found.clips[row.video_b],
            row.labels[args.dimension],
            row.row,
        )
        for row in kept.rows
        if args.dimension in row.labels
    ]
    unlabelled = len(kept.rows) - len(pairs)
    if unlabelled:
        logger.warning("%s: %d pairs have no label for %s", path, unlabelled, args.dimension)
    return pairs


def split_pairs(
    pairs: Sequence[ClipPair], fraction: float, seed: int
) -> tuple[list[ClipPair], list[ClipPair]]:
    """Pairs to train on and pairs held out, such that no clip is in both.

    Pairs that share a clip, directly or through others, stay together; groups are held out in an
    order that depends on the seed alone until at least the fraction is reached.

    Raises:
        ValueError: if all pairs hang together.
    """
    groups = connected_groups(pairs)
    if len(groups) < 2:
        raise ValueError(
            f"all {len(pairs)} pairs hang together through shared clips, so none can be held out: "
            "give `held_out_comparisons`"
        )
    held_out: set[int] = set()
    order = keyed_order(len(groups), seed, -1)
    for group in order[:-1]:
        if len(held_out) >= fraction * len(pairs):
            break
        held_out.update(groups[group])
    train = [pair for index, pair in enumerate(pairs) if index not in held_out]
    return train, [pairs[index] for index in sorted(held_out)]


def connected_groups(pairs: Sequence[ClipPair]) -> list[list[int]]:
    """Indices of pairs that share clips, directly or through others."""
    parent = list(range(len(pairs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    seen: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for info in (pair.first, pair.second):
            parent[root(index)] = root(seen.setdefault(str(info.path), index))
    groups: dict[int, list[int]] = {}
    for index in range(len(pairs)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())
