"""From the names that annotations use to the latent files of those videos."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from gtsvj_reward.annotations.names import Claims, Identity, NameIndex, identity
from gtsvj_reward.annotations.records import Comparisons, Ratings
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.tables import first_few


@dataclass(frozen=True, kw_only=True)
class FoundClips:
    """Which latent file holds which video."""

    clips: dict[str, ClipInfo]
    """Name as the annotations have it -> its latent file."""
    missing: tuple[str, ...]
    """Names without a latent file, in input order."""


def find_clips(
    names: Iterable[str], folder: LatentFolder, *, allow_missing: bool = False
) -> FoundClips:
    """Find the latent files of videos by the source that each file records.

    A name is a path or a URL; See `identity`. It matches a source if they are equal, or if one ends
    with the other: both `videos/kling1.5/x.mp4` and `x.mp4` match the source `kling1.5/x.mp4` (see
    `NameIndex`). Nothing is guessed where that is ambiguous. Latent files without a source match
    nothing.

    Args:
        names: videos as annotations name them, in any order, repeated or not.
        folder: the latent files.
        allow_missing: return names that match nothing instead of raising an error.

    Raises:
        ValueError: if a name matches several files, two names of different videos match one file,
            two files have one source, or, unless allowed, names match nothing.
    """
    sources = by_source(folder)
    index, claims = NameIndex(sources), Claims()
    clips: dict[str, ClipInfo] = {}
    missing = []
    for name in dict.fromkeys(names):
        matches = [sources[source] for source in index.matches(name)]
        if not matches:
            missing.append(name)
            continue
        if len(matches) > 1:
            found = first_few([f"{info.path} (source {info.source})" for info in matches])
            raise ValueError(
                f"{name} matches {len(matches)} latent files: {found}. Name videos by longer "
                "paths, or pass the folder of one data set"
            )
        (info,) = matches
        other = claims.rival(str(info.source), name)
        if other is not None:
            raise ValueError(
                f"{name} and {other} both match {info.path} (source {info.source}), which can hold "
                "only one of them: encode the folder above, so that sources tell them apart"
            )
        clips[name] = info
    if missing and not allow_missing:
        unnamed = sum(info.source is None for info in folder.infos)
        raise ValueError(
            f"{len(missing)} of {len(missing) + len(clips)} videos have no latent file below "
            f"{folder.path} ({len(folder)} files, {unnamed} of them without a source): "
            f"{first_few(missing)}. Encode them with `gtsvj encode`, or go on with the "
            "others: --allow_missing_videos (`allow_missing=True`)"
        )
    return FoundClips(clips=clips, missing=tuple(missing))


def keep_found_comparisons(comparisons: Comparisons, found: FoundClips) -> tuple[Comparisons, int]:
    """The comparisons both of whose videos were found, and the number of the others.

    Raises:
        ValueError: for a video that was not passed to `find_clips`.
    """
    _check_asked(comparisons.videos(), found)
    kept = tuple(
        row for row in comparisons.rows if row.video_a in found.clips and row.video_b in found.clips
    )
    return replace(comparisons, rows=kept), len(comparisons.rows) - len(kept)


def keep_found_ratings(ratings: Ratings, found: FoundClips) -> tuple[Ratings, int]:
    """The ratings whose video was found, and the number of the others.

    Raises:
        ValueError: for a video that was not passed to `find_clips`.
    """
    _check_asked(ratings.videos(), found)
    kept = tuple(row for row in ratings.rows if row.video in found.clips)
    return replace(ratings, rows=kept), len(ratings.rows) - len(kept)


def _check_asked(names: tuple[str, ...], found: FoundClips) -> None:
    asked = found.clips.keys() | set(found.missing)
    unknown = [name for name in names if name not in asked]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(names)} videos are neither among the found clips nor among "
            f"the missing ones: {first_few(unknown)}; pass all names to `find_clips`"
        )


def by_source(folder: LatentFolder) -> dict[str, ClipInfo]:
    """Source -> latent file; files without a source are left out.

    Raises:
        ValueError: if two files are of one source.
    """
    sources: dict[str, ClipInfo] = {}
    known: dict[Identity, ClipInfo] = {}
    for info in folder.infos:
        if info.source is None:
            continue
        other = known.setdefault(identity(info.source), info)
        if other is not info:
            raise ValueError(
                f"{other.path} and {info.path} are both of the source {info.source}: keep one "
                "folder for each set of videos and each way of encoding, and pass one of them"
            )
        sources[info.source] = info
    return sources
