"""Student's t: how far a mean of few values may be off."""

import math
from functools import lru_cache


@lru_cache
def student_quantile(tail: float, degrees: int) -> float:
    """Value of T that is exceeded with a probability, for whole degrees of freedom.

    With t = √n tan θ, P(|T| <= t) is a finite sum (Abramowitz and Stegun 1972, 26.7.3 and 26.7.4);
    θ is found by bisection.

    Args:
        tail: probability of a larger value, in (0, 0.5); down to about 1e-12.
        degrees: n, of freedom, at least 1.

    Raises:
        ValueError: for numbers out of range.
    """
    if not 0 < tail < 0.5 or degrees < 1:
        raise ValueError(f"expected 0 < tail < 0.5 and degrees >= 1, got {tail} and {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if within(middle, degrees) < 1 - 2 * tail:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def within(angle: float, degrees: int) -> float:
    """P(|T| <= √n tan θ)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    total, term = 0.0, cosine if odd else 1.0
    for index in range(degrees // 2):
        total += term
        term *= cosine**2 * (2 * index + 1 + odd) / (2 * index + 2 + odd)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
