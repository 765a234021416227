"""From a file of comparisons and a folder of latents to compared clips."""

import logging

from gtsvj_reward.annotations import (
    COMPARISON_FORMATS,
    find_clips,
    keep_found_comparisons,
    read_labelled_comparisons,
)
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.training.labelled import chosen_reader, report_left_out
from gtsvj_reward.training.preference.data import ClipPair
from gtsvj_reward.training.preference.settings import ComparisonsData

logger = logging.getLogger(__name__)


def compared_clips(path: str, folder: LatentFolder, args: ComparisonsData) -> list[ClipPair]:
    """Pairs with a label in the dimension to train on, whose clips have latents.

    Raises:
        ValueError: for an unknown format or dimension, or pairs without latents unless they are
            allowed.
    """
    chosen_reader(COMPARISON_FORMATS, args.comparisons_format, "comparisons_format")
    comparisons = read_labelled_comparisons(path, args.comparisons_format, args.labels)
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
            row.group,
            row.probabilities.get(args.dimension),
            row.weight,
        )
        for row in kept.rows
        if args.dimension in row.labels
    ]
    unlabelled = len(kept.rows) - len(pairs)
    if unlabelled:
        logger.warning("%s: %d pairs have no label for %s", path, unlabelled, args.dimension)
    return pairs
