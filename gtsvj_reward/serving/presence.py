"""Work that stops when its client disconnects."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from gtsvj_reward.serving.refusals import NotScoredError

T = TypeVar("T")

CLIENT_GONE = 499
"""The status that nginx logs for it; no client receives it."""


async def while_present(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled when the client closes the connection.

    Args:
        request: its body has been read.
        work: the requested work.

    Raises:
        NotScoredError: 499 for a client that is gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(departure(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise NotScoredError(CLIENT_GONE, "the client closed the connection")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def departure(request: Request) -> None:
    """Return when the connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
