"""From the names of one table to the names that another uses for the same videos."""

from collections.abc import Iterable

from gtsvj_reward.annotations.names import Claims, NameIndex
from gtsvj_reward.tables import first_few


def match_videos(wanted: Iterable[str], known: Iterable[str], table: str) -> dict[str, str]:
    """Find the row of each video in another table, by the rules of `NameIndex`.

    Args:
        wanted: videos as one table names them, for example a table of comparisons.
        known: videos as the other names them, for example a table of scores.
        table: name of the other table in messages.

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
                f"{name} matches {len(found)} videos of {table}: {first_few(found)}. Name videos "
                "there by longer paths, or by the very same names"
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
