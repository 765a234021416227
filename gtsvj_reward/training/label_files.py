"""From files of labels and folders of latents to labelled clips."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gtsvj_reward.annotations import (
    COMPARISON_FORMATS,
    RATING_FORMATS,
    AspectScale,
    find_clips,
    keep_found_comparisons,
    keep_found_ratings,
)
from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.training.data import split
from gtsvj_reward.training.labelled import ClipPair, RatedClip
from gtsvj_reward.training.reward_arguments import AspectConfig, PreferenceConfig

logger = logging.getLogger(__name__)

Reader = TypeVar("Reader", bound=Callable[..., object])


def rated_clips(
    path: str, folder: LatentFolder, args: AspectConfig
) -> tuple[list[RatedClip], Sequence[AspectScale | str]]:
    """Rated clips that have latents, and the aspects of their file, with scales if it has them.

    Raises:
        ValueError: for an unknown format, labels without latents unless they are allowed, or two
            ratings of one clip.
    """
    ratings = chosen_reader(RATING_FORMATS, args.ratings_format, "ratings_format")(path)
    found = find_clips(ratings.videos(), folder, allow_missing=args.allow_missing_videos)
    kept, left_out = keep_found_ratings(ratings, found)
    report_left_out(path, len(kept.rows), left_out, ratings.skipped)
    clips = [RatedClip(found.clips[row.video], row.scores, row.row) for row in kept.rows]
    return clips, ratings.scales or ratings.aspects


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


def choose_aspects(
    wanted: Sequence[str] | None, known: Sequence[AspectScale | str]
) -> tuple[Aspect, ...]:
    """The aspects to predict, each with its scale.

    Args:
        wanted: names, or `name=low:high`; None: all that are known.
        known: what the file has, with scales if the format says them.

    Raises:
        ValueError: for a name that the file does not have, or a scale that nothing says.
    """
    scales = {item.name: (item.low, item.high) for item in known if not isinstance(item, str)}
    names = [item if isinstance(item, str) else item.name for item in known]
    aspects = []
    for text in wanted if wanted is not None else names:
        name, _, scale = text.partition("=")
        if name not in names:
            raise ValueError(f"the ratings have no aspect {name!r}: choose from {names}")
        if scale:
            low, _, high = scale.partition(":")
            aspects.append(Aspect(name=name, low=float(low), high=float(high)))
        elif name in scales:
            aspects.append(Aspect(name=name, low=scales[name][0], high=scales[name][1]))
        else:
            raise ValueError(
                f"the format does not say the scale of {name!r}: write `{name}=LOW:HIGH` among "
                "`aspects`, for example `clear=1:5`"
            )
    return tuple(aspects)


def split_rated(
    rated: Sequence[RatedClip], fraction: float, seed: int
) -> tuple[list[RatedClip], list[RatedClip]]:
    """Rated clips to train on and held-out ones; all ratings of a clip stay together."""
    infos = list({str(clip.info.path): clip.info for clip in rated}.values())
    _, apart = split(infos, fraction, seed)
    held_out = {str(info.path) for info in apart}
    return (
        [clip for clip in rated if str(clip.info.path) not in held_out],
        [clip for clip in rated if str(clip.info.path) in held_out],
    )


def chosen_reader(readers: Mapping[str, Reader], name: str, setting: str) -> Reader:
    """The reader of a format.

    Raises:
        ValueError: for a name that is not in the table.
    """
    if name not in readers:
        raise ValueError(f"`{setting}` must be one of {list(readers)}, got {name!r}")
    return readers[name]


def report_left_out(path: str, kept: int, left_out: int, skipped: Mapping[str, int]) -> None:
    """Say how many rows and labels of a file are not used, and why.

    Raises:
        ValueError: if none is left.
    """
    if not kept:
        raise ValueError(f"no row of {path} is left: none of its videos has latents")
    if left_out:
        logger.warning("%s: %d rows left out for want of latents, %d kept", path, left_out, kept)
    for reason, count in skipped.items():
        logger.warning("%s: %d labels left out: %s", path, count, reason)
