"""From the names that comparisons use to the names that a score table uses."""

from collections.abc import Iterable

from gtsvj_reward.annotations.names import Claims, NameIndex
from gtsvj_reward.evaluation.scores import named


def match_videos(wanted: Iterable[str], known: Iterable[str], table: str) -> dict[str, str]:
    """Find the row of each video in a table of scores, by the rules of `NameIndex`.

    Args:
        wanted: videos as comparisons name them.
        known: videos as the table names them.
        table: what messages call the table.

    Returns:
        Wanted name -> known name, for those that have one.

    Raises:
        ValueError: if a name matches several rows, or two names of different videos match one row.
    """
    index, claims = NameIndex(known), Claims()
    matches: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        found = index.matches(name)
        if len(found) > 1:
            raise ValueError(
                f"{name} matches {len(found)} videos of {table}: {named(found)}. Name videos there "
                "by longer paths, or by the very names of the comparisons"
            )
        if found:
            other = claims.rival(found[0], name)
            if other is not None:
                raise ValueError(
                    f"{name} and {other} both match {found[0]} of {table}, which can be only one "
                    "of them: name videos there by longer paths"
                )
            matches[name] = found[0]
    return matches
