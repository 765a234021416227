"""From a file of ratings and a folder of latents to rated clips."""

from collections.abc import Sequence

from gtsvj_reward.annotations import RATING_FORMATS, AspectScale, find_clips, keep_found_ratings
from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.store import LatentFolder
from gtsvj_reward.training.aspects.data import RatedClip
from gtsvj_reward.training.aspects.settings import RatingsData
from gtsvj_reward.training.labelled import chosen_reader, report_left_out


def rated_clips(
    path: str, folder: LatentFolder, args: RatingsData
) -> tuple[list[RatedClip], Sequence[AspectScale | str]]:
    """Rated clips that have latents, and the aspects of their file, with scales if it has them.

    Raises:
        ValueError: for an unknown format, labels without latents unless they are allowed, or two
            ratings of one clip.
    """
    reader = chosen_reader(RATING_FORMATS, args.ratings_format, "ratings_format")
    names = None if args.aspects is None else [text.partition("=")[0] for text in args.aspects]
    ratings = reader(path, aspects=names)
    found = find_clips(ratings.videos(), folder, allow_missing=args.allow_missing_videos)
    kept, left_out = keep_found_ratings(ratings, found)
    report_left_out(path, len(kept.rows), left_out, ratings.skipped)
    clips = [RatedClip(found.clips[row.video], row.scores, row.row, row.group) for row in kept.rows]
    return clips, ratings.scales or ratings.aspects


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
                f"the format does not define the scale of {name!r}: write `{name}=LOW:HIGH` in "
                "--aspects (`aspects`), for example `clear=1:5`"
            )
    return tuple(aspects)
