"""Counts and times of the server, in the text format that Prometheus reads."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
CLIPS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass
class Counter:
    """A number per set of labels that only grows."""

    name: str
    help: str
    labels: tuple[str, ...]
    values: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, *labels: str, amount: int = 1) -> None:
        """Count, under values of the labels."""
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        """Lines in Prometheus format."""
        yield from (f"# HELP {self.name} {self.help}", f"# TYPE {self.name} counter")
        for labels, value in sorted(self.values.items()):
            pairs = ",".join(f'{k}="{v}"' for k, v in zip(self.labels, labels, strict=True))
            yield f"{self.name}{{{pairs}}} {value}" if pairs else f"{self.name} {value}"


@dataclass
class Histogram:
    """How often a quantity was up to each of some bounds."""

    name: str
    help: str
    bounds: Sequence[float]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self) -> Iterator[str]:
        """Lines in Prometheus format: cumulative counts up to each bound."""
        yield from (f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram")
        seen = 0
        for bound, count in zip(
            (*map("{:g}".format, self.bounds), "+Inf"), self.counts, strict=True
        ):
            seen += count
            yield f'{self.name}_bucket{{le="{bound}"}} {seen}'
        yield from (f"{self.name}_sum {self.total:.9g}", f"{self.name}_count {seen}")


@dataclass
class Gauge:
    """A number as it is now."""

    name: str
    help: str
    value: Callable[[], float]

    def lines(self) -> Iterator[str]:
        """Lines in Prometheus format."""
        yield from (f"# HELP {self.name} {self.help}", f"# TYPE {self.name} gauge")
        yield f"{self.name} {self.value():g}"


class Metrics:
    """All that one server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "gtsvj_requests_total", "Answers by path and status.", ("path", "status")
        )
        self.clips = Counter("gtsvj_clips_total", "Clips that were scored.", ())
        self.dropped = Counter(
            "gtsvj_dropped_clips_total", "Clips not scored, since their client was gone.", ()
        )
        self.refused = Counter(
            "gtsvj_refused_connections_total", "Connections beyond those that may be open.", ()
        )
        self.request_seconds = Histogram(
            "gtsvj_request_seconds", "From the head of a scored request to its answer.", SECONDS
        )
        self.batch_clips = Histogram("gtsvj_batch_clips", "Clips per batch.", CLIPS)
        self.batch_seconds = Histogram("gtsvj_batch_seconds", "Scoring of a batch.", SECONDS)
        self.gauges: list[Gauge] = []

    def text(self) -> str:
        """The answer of `/metrics`."""
        families: list[Counter | Histogram | Gauge] = [
            self.requests,
            self.clips,
            self.dropped,
            self.refused,
            self.request_seconds,
            self.batch_clips,
            self.batch_seconds,
            *self.gauges,
        ]
        return "".join(f"{line}\n" for family in families for line in family.lines())
