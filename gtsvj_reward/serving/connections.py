"""Limits on connections: their number, and the time for a request's head."""

import asyncio
import json
import logging
import math
import sys
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from gtsvj_reward.serving.metrics import Counter


class OncePerSecond(logging.Filter):
    """Passes each warning at most once a second, with the number of suppressed ones.

    Anybody can make a server warn as often as he likes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record; errors always are."""
        if record.levelno != logging.WARNING:
            return True
        template, now = str(record.msg), time.monotonic()
        since, held = self.seen.get(template, (-math.inf, 0))
        if now - since < 1:
            self.seen[template] = since, held + 1
            return False
        self.seen[template] = now, 0
        if held:
            record.msg = f"{template} ({held} more since the last time)"
        return True


logger = logging.getLogger(__name__)
logger.addFilter(OncePerSecond())

BACKLOG = 128
"""Connections that the system keeps until they are accepted, and the most accepted in one go."""

RESERVED = 3 * BACKLOG
"""Descriptors for files, libraries and connections that are rejected after accept."""

_REASON = json.dumps({"detail": "too many connections are open: come back later"}).encode()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)


def affordable(wanted: int) -> int:
    """The requested number of connections, or fewer if the process may not open that many files."""
    if sys.platform == "win32":  # where files and sockets have no limit of that kind
        return wanted
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    most = max(1, files - min(RESERVED, files * 3 // 4))
    if most < wanted:
        logger.warning(
            "at most %d connections at once instead of %d: this process may open %d files "
            "(`ulimit -n`)",
            most,
            wanted,
            files,
        )
    return min(wanted, most)


class LimitedProtocol(H11Protocol):
    """Rejects connections beyond a limit, and closes those without a complete head in time.

    uvicorn itself limits requests, not connections, and waits forever for the head of a first
    request and for the end of a rejected body. Subclasses set the attributes.
    """

    most: int
    """Open connections."""
    seconds: float
    """For the head of a request to arrive."""
    refused: Counter
    """Counts connections beyond that number."""
    waiting_for_head: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = logger

    def connection_made(self, transport: Any) -> None:
        """Start the timeout, or reject the connection."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.refused.add()
            logger.warning("over %d connections are open: the last was rejected", self.most)
            transport.write(_FULL)
            transport.close()
            return
        self.watch()

    def data_received(self, data: bytes) -> None:
        """Wait on, or stop waiting if the head is complete."""
        super().data_received(data)
        self.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self.forget()
        super().connection_lost(exc)

    def watch(self) -> None:
        """The clock runs whenever no request is in hand; more bytes do not set it back."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.forget()
        elif self.waiting_for_head is None:
            self.waiting_for_head = self.loop.call_later(self.seconds, self.transport.close)

    def forget(self) -> None:
        """Stop the clock."""
        if self.waiting_for_head is not None:
            self.waiting_for_head.cancel()
            self.waiting_for_head = None


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what goes wrong in the event loop; as a warning that no connection can be accepted."""
    if str(context.get("message")).startswith("socket.accept()"):
        logger.warning("no connection can be accepted: %s", context.get("exception"))
    else:
        loop.default_exception_handler(context)
