"""Progress of long work: a bar, and how long all of it will take, said once that is known."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

WARM = 10.0
"""Seconds. A first part that took less may have been slow to start: the second is timed as well."""
SHORT = 15.0
"""Seconds. Of work that is done sooner nothing is said."""

Clock = Callable[[], float]


class Forecast:
    """How long work will take, from the time of its first parts; it is said once.

    Args:
        what: the work, e.g. "encode".
        work: all of it that is left, in any unit.
        besides: seconds of other work that comes as well.
        at_most: part of the work may turn out to be done already.
        clock: the time in seconds.
    """

    def __init__(
        self,
        what: str,
        work: float,
        *,
        besides: float = 0.0,
        at_most: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.what, self.left, self.besides, self.at_most = what, work, besides, at_most
        self.clock, self.since = clock, clock()
        self.parts, self.known = 0, False

    def skip(self, work: float) -> None:
        """Some work is not needed; time counts from here."""
        self.left -= work
        self.since = self.clock()

    def part(self, work: float) -> str | None:
        """Some work was done; the line to print, if it is known now how long the rest takes."""
        now = self.clock()
        seconds, self.since = now - self.since, now
        self.left -= work
        self.parts += 1
        if self.known or work <= 0 or (self.parts == 1 and seconds < WARM):
            return None
        self.known = True
        rest = self.left / work * seconds + self.besides
        if self.left <= 0 or rest < SHORT:
            return None
        return f"{self.what}: {'at most ' if self.at_most else ''}about {duration(rest)} to go"


class Progress(tqdm):
    """A progress bar that says how long the work will take, once its first parts are done.

    The environment variables of tqdm, such as `TQDM_DISABLE`, hold for it.

    Args:
        total: number of parts, such as clips.
        what: the work, e.g. "encode".
        shown: False shows nothing and says nothing.
        initial: parts that were done before.
        work: of the parts that are left, in any unit; as many as parts by default.
        besides: as for `Forecast`, as is `at_most`.
        at_most: see `besides`.
        leave: whether the bar stays when it is done.
    """

    def __init__(
        self,
        total: int,
        what: str,
        *,
        shown: bool = True,
        initial: int = 0,
        work: float | None = None,
        besides: float = 0.0,
        at_most: bool = False,
        leave: bool = True,
    ) -> None:
        silent = {} if shown else {"disable": True}  # otherwise the environment decides
        super().__init__(total=total, desc=what, initial=initial, leave=leave, **silent)
        self.forecast = Forecast(
            what, total - initial if work is None else work, besides=besides, at_most=at_most
        )

    def skip(self, parts: int = 1, *, work: float | None = None) -> None:
        """Some parts are done already; time counts from here."""
        super().update(parts)
        self.forecast.skip(parts if work is None else work)

    def update(self, n: float | None = 1, *, work: float | None = None) -> bool | None:
        """Some parts were done now."""
        said = self.forecast.part((n or 0) if work is None else work)
        if said and not self.disable:
            self.write(said, file=sys.stderr)
        drawn: bool | None = super().update(n)
        return drawn


def duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
