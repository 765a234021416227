"""How much a server takes in: sizes, numbers and times, and reading bodies within them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from gtsvj_reward.serving.refusals import NotScoredError

MIB = 1 << 20
MAX_HEAD_BYTES = 1 << 16
"""All headers of a request together; then 431, or 400 if the server does not even read them."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on requests; beyond them a request gets a status of 4xx."""

    max_batch_size: int = 8
    """Clips at which a batch starts at once, and the maximum of one forward pass."""
    max_wait_ms: float = 10.0
    """Milliseconds that a request waits for others while the judge is idle."""
    max_queue: int = 256
    """Clips that may wait; then 429."""
    max_queue_seconds: float = 60.0
    """Seconds that the work ahead of a request may take, by the pace so far; then 429. Less than
    clients wait for an answer."""
    max_clips: int = 32
    """Clips in one request; then 422."""
    max_body_mib: float = 64.0
    """Size of a body in MiB; then 413."""
    max_pending_mib: float = 1024.0
    """Size of all bodies that are being received, wait or are scored, in MiB; then 429."""
    max_connections: int = 512
    """Open connections, or fewer if the process may not open that many files; then 503."""
    body_seconds: float = 60.0
    """Seconds in which a body must arrive; then 408."""
    head_seconds: float = 20.0
    """Seconds in which the head of a request must arrive; then the connection is closed."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 and name != "max_wait_ms":
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.max_wait_ms < 0:
            raise ValueError(f"`max_wait_ms` must be >= 0, got {self.max_wait_ms}")
        if self.max_clips > self.max_queue or self.max_body_mib > self.max_pending_mib:
            raise ValueError(
                "one request must fit into the queue: expected max_clips <= max_queue and "
                f"max_body_mib <= max_pending_mib, got {self}"
            )


class Pending:
    """Bytes of bodies that are being received, wait or are scored.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.total = 0

    @contextmanager
    def hold(self) -> Iterator["Held"]:
        """Memory reserved by one request; released at the end."""
        held = Held(self)
        try:
            yield held
        finally:
            self.total -= held.size


@dataclass
class Held:
    """The share of one request in `Pending`."""

    pending: Pending
    size: int = 0

    def grow_to(self, size: int) -> None:
        """Reserve at least this many bytes.

        Raises:
            NotScoredError: 429 if all requests together would hold too many.
        """
        more = max(0, size - self.size)
        if self.pending.total + more > self.pending.limit:
            raise NotScoredError(429, "too many bytes are queued already", retry_after=2)
        self.pending.total += more
        self.size += more


async def read_limited(request: Request, held: Held, limits: Limits) -> bytes:
    """The body of a request, rejected as soon as it is too large or too slow.

    Raises:
        NotScoredError: 413, 408, 429, 431; 400 if the client disconnected.
    """
    # h11 only limits heads that come in pieces.
    if sum(len(name) + len(value) for name, value in request.headers.raw) > MAX_HEAD_BYTES:
        raise NotScoredError(431, f"the headers have over {MAX_HEAD_BYTES} bytes")
    largest = int(limits.max_body_mib * MIB)
    announced = request.headers.get("content-length", "0")
    # h11 lets nothing but digits through; other servers may.
    size = int(announced) if announced.isascii() and announced.isdecimal() else largest + 1
    if size > largest:
        raise NotScoredError(
            413, f"the body has {announced[:20]} bytes, expected at most {largest}"
        )
    held.grow_to(size)
    try:
        return await asyncio.wait_for(receive(request, held, largest), limits.body_seconds)
    except asyncio.TimeoutError as error:
        reason = f"the body did not arrive in {limits.body_seconds:g} s"
        raise NotScoredError(408, reason) from error
    except ClientDisconnect as error:
        raise NotScoredError(400, "the connection closed before the whole body arrived") from error


async def receive(request: Request, held: Held, largest: int) -> bytes:
    """The body, or an error once more than `largest` bytes have arrived."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > largest:
            raise NotScoredError(413, f"the body has more than {largest} bytes, the maximum")
        held.grow_to(size)
        chunks.append(chunk)
    return b"".join(chunks)
