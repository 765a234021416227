"""A rated quality and its scale."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One quality that people rated."""

    name: str
    """For example `"movement smoothness"`."""
    low: float
    """Lowest value of its scale."""
    high: float
    """Highest value of its scale."""

    def __post_init__(self) -> None:
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ValueError(f"aspect {self.name!r} needs low < high, got {self.low}..{self.high}")
