"""How long work will take, by the pace of the work that was done."""


class Pace:
    """Seconds per unit of work, mostly of late; nothing is known before the first was done."""

    def __init__(self) -> None:
        self.seconds_per_unit: float | None = None

    def learn(self, units: float, seconds: float) -> None:
        """Record the time of a number of units."""
        found, known = seconds / units, self.seconds_per_unit
        self.seconds_per_unit = found if known is None else 0.8 * known + 0.2 * found

    def seconds(self, units: float) -> float:
        """Expected time of a number of units; 0 without data."""
        return units * (self.seconds_per_unit or 0.0)
