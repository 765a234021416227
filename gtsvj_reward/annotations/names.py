"""Which names of videos mean the same video."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

Identity = tuple[str, tuple[str, ...]]
"""Host of a URL ("" for a path), and the components of the path."""


def identity(name: str) -> Identity:
    """What of a name says which video it is: of a URL the decoded path, without the query.

    Raises:
        ValueError: for a name without any component.
    """
    host, path = "", name
    if "://" in name:
        url = urlsplit(name)
        host, path = url.netloc, unquote(url.path)
    parts = PurePosixPath(path.lstrip("/")).parts
    if not parts:
        raise ValueError(f"expected the name of a video, got {name!r}")
    return host, parts


class NameIndex:
    """Names to look up: by the same text, else by an equal path, else by the end of a path.

    Ends are whole components: `videos/kling1.5/x.mp4` and `x.mp4` both match `kling1.5/x.mp4`.

    Args:
        known: the names; one that comes twice counts once.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self.known = set(known)
        self.whole: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self.ends: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in sorted(self.known):
            _, parts = identity(name)
            self.whole[parts].append(name)
            for start in range(1, len(parts)):
                self.ends[parts[start:]].append(name)

    def matches(self, name: str) -> list[str]:
        """All known names that a name may mean, in order; of the best kind of match only."""
        _, parts = identity(name)
        if name in self.known:
            return [name]
        if parts in self.whole:
            return self.whole[parts]
        shorter = [parts[start:] for start in range(1, len(parts))]
        found = [match for end in shorter for match in self.whole.get(end, [])]
        return found + self.ends.get(parts, [])


class Claims:
    """Sees that names of different videos do not claim one and the same thing."""

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}

    def rival(self, claimed: str, name: str) -> str | None:
        """The name of another video that has claimed it before, or None."""
        other = self.taken.setdefault(claimed, name)
        return None if identity(other) == identity(name) else other
