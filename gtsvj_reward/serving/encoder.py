"""The videos of all requests, encoded one after the other, and how many may wait for that."""

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.pace import Pace
from gtsvj_reward.serving.refusals import NotScoredError

T = TypeVar("T")


class Encoder:
    """A thread that reads and encodes videos.

    Args:
        limits: how many videos may wait, and for how long.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting = 0
        self.pace = Pace()
        self.parsing = asyncio.Lock()
        self.thread = ThreadPoolExecutor(1, "encoder")

    async def parse(self, read: Callable[[bytes], list[T]], body: bytes) -> list[T]:
        """Parse a body; one at a time, since parsing takes several times its size in memory."""
        async with self.parsing:
            return await asyncio.to_thread(read, body)

    @contextmanager
    def hold(self, videos: int) -> Iterator["Share"]:
        """Reserve queue space for a request with this many videos until the end of the block.

        Raises:
            NotScoredError: 429 if too many are waiting, or for too long.
        """
        ahead = self.pace.seconds(self.waiting)
        if self.waiting + videos > self.limits.max_queue:
            reason = f"{self.waiting} videos are waiting, at most {self.limits.max_queue} may"
        elif ahead > self.limits.max_queue_seconds:
            reason = f"the videos ahead take about {ahead:.0f} s to encode"
        else:
            share = Share(self, videos)
            self.waiting += videos
            try:
                yield share
            finally:
                self.waiting -= share.left
            return
        pause = max(1, min(60, math.ceil(ahead / 2)))
        raise NotScoredError(429, f"{reason}: retry later", retry_after=pause)

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown()


@dataclass
class Share:
    """The videos of one request that wait, or are encoded."""

    encoder: Encoder
    left: int

    async def encode(self, work: Callable[[], T]) -> T:
        """The result of encoding one of the videos, when it is its turn."""
        encoder, loop = self.encoder, asyncio.get_running_loop()

        def timed() -> T:
            began = loop.time()
            try:
                return work()
            finally:
                loop.call_soon_threadsafe(encoder.pace.learn, 1, loop.time() - began)

        try:
            return await loop.run_in_executor(encoder.thread, timed)
        finally:
            self.left -= 1
            encoder.waiting -= 1
