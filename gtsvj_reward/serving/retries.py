"""When a request to a server is sent again, and when it is given up."""

import logging
import random
import time
from collections.abc import Callable, Collection
from typing import Any

logger = logging.getLogger(__name__)

RETRIED = (404, 408, 429, 502, 503, 504)
"""Statuses after which the same request may well succeed; 404 is Ray's proxy while the server
starts or stops."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds; pauses double from the first to the longest."""


class RefusedError(ValueError):
    """The server rejected a request, with a reason; retrying would not help."""


class ScoreServerError(RuntimeError):
    """The server failed, or did not answer in time; there is no score."""


def asked_pause(header: str | None) -> float:
    """Seconds in a `Retry-After` header; 0 without one, and for the form with a date."""
    digits = (header or "").strip()
    usable = digits.isascii() and digits.isdecimal() and len(digits) < 6
    return float(digits) if usable else 0.0


def may_pass(response: Any, retried: Collection[int]) -> bool:
    """Whether the same request may succeed later.

    500 with a reason means that the judge failed; without a reason it is from a proxy whose replica
    died.
    """
    if response.status_code != 500:
        return response.status_code in retried
    try:
        answer = response.json()
    except ValueError:
        return True
    return not (isinstance(answer, dict) and "detail" in answer)


def repeat(
    send: Callable[[], Any], *, retry_for: float, where: str, retried: Collection[int] = RETRIED
) -> Any:
    """The answer with status 200, from as many attempts as there is time for.

    Pauses are random, so that many clients do not retry at the same time.

    Args:
        send: sends the request with httpx; called once per attempt.
        retry_for: seconds after which the last failure is raised.
        where: the server, for messages.
        retried: statuses to retry.

    Raises:
        RefusedError: for a status below 500 that no repetition changes, with the server's reason.
        ScoreServerError: for other statuses, and when the time is over.
    """
    import httpx

    give_up, pause, attempts = time.monotonic() + retry_for, FIRST_PAUSE, 0
    while True:
        attempts, wait = attempts + 1, pause * random.uniform(0.5, 1.0)
        try:
            response = send()
        except httpx.TransportError as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            if response.status_code == 200:
                return response
            reason = f"HTTP {response.status_code}: {response.text[:2000]}"
            if not may_pass(response, retried):
                failure = RefusedError if response.status_code < 500 else ScoreServerError
                raise failure(f"{where} gave no score: {reason}")
            wait = max(wait, asked_pause(response.headers.get("retry-after")))
        if time.monotonic() + wait > give_up:
            raise ScoreServerError(
                f"no score from {where} after {attempts} attempts in {retry_for:g} s, the last: "
                f"{reason}"
            )
        logger.warning("%s, attempt %d: %s; again in %.1f s", where, attempts, reason, wait)
        time.sleep(wait)
        pause = min(LONGEST_PAUSE, 2 * pause)
