"""Which names of videos mean the same video."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from gtsvj_reward.latents.sources import VIDEO_SUFFIXES


@dataclass(frozen=True, order=True)
class Identity:
    """The identifying part of a name; equal for two names of one video."""

    host: str
    """Of a URL; "" for a path."""
    parts: tuple[str, ...]
    """Components of the path, the last without the suffix of a video."""
    suffix: str = ""
    """The suffix, or "" if there is none."""
    query: tuple[tuple[str, str], ...] = ()
    """Names and values of a URL's query, in alphabetical order."""

    def may_be(self, other: "Identity") -> bool:
        """Whether everything that both names contain agrees, except for leading folders."""
        if self.host and other.host and self.parts != other.parts:
            return False
        said = ("host", "suffix", "query")
        mine, others = ([getattr(x, name) for name in said] for x in (self, other))
        return all(a == b or not a or not b for a, b in zip(mine, others, strict=True))


def identity(name: str) -> Identity:
    r"""The identifying part of a name.

    Of a URL host, decoded path and query count, whatever the order in the query; the fragment does
    not (`#t=1`). Of a path the components count, between / or \ alike. Letters with accents are the
    same letters in all Unicode forms. Capital and small letters differ, except in a host.

    Raises:
        ValueError: for a name without any component.
    """
    host, path, query = "", name, ""
    if "://" in name:
        try:
            url = urlsplit(name)
        except ValueError as error:
            raise ValueError(f"expected the name of a video, got {name!r}: {error}") from error
        host, path, query = url.netloc.lower(), unquote(url.path), url.query
    else:
        path = path.replace("\\", "/")
    parts = PurePosixPath(unicodedata.normalize("NFC", path).lstrip("/")).parts
    if not parts:
        raise ValueError(f"expected the name of a video, got {name!r}")
    stem, suffix = parts[-1], PurePosixPath(parts[-1]).suffix
    if suffix.lower() in VIDEO_SUFFIXES:
        stem = stem.removesuffix(suffix)
    else:
        suffix = ""
    fields = sorted(parse_qsl(query, keep_blank_values=True))
    if query and not fields:
        fields = [(query, "")]
    return Identity(host, (*parts[:-1], stem), suffix, tuple(fields))


def names_video(name: str) -> bool:
    """Whether `identity` can identify the video of a name."""
    try:
        identity(name)
    except ValueError:
        return False
    return True


class NameIndex:
    """Names to look up: by the same text or identity, else by an equal path, else by the end of it.

    Ends are whole components: `videos/kling1.5/x.mp4` and `x.mp4` both match `kling1.5/x.mp4`.
    Parts that only one of two names has are ignored: the host and the query of a URL, or the suffix
    (`x` matches `x.mp4`, but neither of them `x.webm` if it has a suffix, and `watch?v=A` never
    `watch?v=B`). URLs of one host must have the same path.

    Args:
        known: the names; one that comes twice counts once.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self.known = {name: identity(name) for name in sorted(set(known))}
        self.same: dict[Identity, list[str]] = defaultdict(list)
        self.whole: dict[tuple[str, ...], list[str]] = defaultdict(list)
        self.ends: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name, who in self.known.items():
            self.same[who].append(name)
            self.whole[who.parts].append(name)
            for start in range(1, len(who.parts)):
                self.ends[who.parts[start:]].append(name)

    def matches(self, name: str) -> list[str]:
        """All known names that a name may mean, in order; of the best kind of match only."""
        who = identity(name)
        if name in self.known:
            return [name]
        if who in self.same:
            return self.same[who]
        whole = self._possible(who, self.whole.get(who.parts, []))
        with_suffix = [match for match in whole if self.known[match].suffix == who.suffix]
        if whole:
            return with_suffix or whole
        shorter = [who.parts[start:] for start in range(1, len(who.parts))]
        found = [match for end in shorter for match in self.whole.get(end, [])]
        return self._possible(who, found + self.ends.get(who.parts, []))

    def _possible(self, who: Identity, names: Iterable[str]) -> list[str]:
        return [name for name in names if who.may_be(self.known[name])]


class Claims:
    """Sees that names of different videos do not claim one and the same thing."""

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}

    def rival(self, claimed: str, name: str) -> str | None:
        """The name of another video that has claimed it before, or None."""
        other = self.taken.setdefault(claimed, name)
        return None if identity(other) == identity(name) else other
