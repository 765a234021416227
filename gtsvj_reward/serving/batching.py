"""Dynamic batching: requests of one kind that wait at the same time are scored together."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.serving.jobs import Job, is_out_of_memory
from gtsvj_reward.serving.metrics import Metrics
from gtsvj_reward.serving.pace import Pace
from gtsvj_reward.serving.refusals import NotScoredError

logger = logging.getLogger(__name__)

Outcome = RewardOutput | ValueError
Score = Callable[[Sequence[Job]], list[Outcome]]
"""Scores jobs of one kind; runs in a thread of its own."""


@dataclass(eq=False)
class Waiting:
    """A job in the queue."""

    job: Job
    done: "asyncio.Future[RewardOutput]"
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """A queue in front of one scorer.

    While a batch is scored, others gather. The next one is of the kind of the job that waits
    longest, unless that may wait and another kind fills a batch already; so no kind starves. A job
    whose client has disconnected leaves the queue.

    Args:
        score: see `Score`.
        max_batch_size: clips at which a batch starts at once; a request's clips stay together.
        max_wait: seconds that a job waits for other jobs while the scorer is idle.
        max_queue: queued clips beyond which requests are rejected with 429.
        max_queue_seconds: the same for the seconds of work ahead of a request.
        metrics: counts batches.
    """

    def __init__(
        self,
        score: Score,
        *,
        max_batch_size: int,
        max_wait: float,
        max_queue: int,
        max_queue_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.score = score
        self.max_batch_size = max_batch_size
        self.max_wait = max_wait
        self.max_queue = max_queue
        self.max_queue_seconds = max_queue_seconds
        self.metrics = metrics
        self.queue: list[Waiting] = []
        self.pace = Pace()
        self.busy_until = 0.0
        self.closing = False
        self.hurrying = False
        self.changed = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "judge")
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def submit(self, job: Job, *, admitted: bool = False) -> RewardOutput:
        """The scores of a job; once it is in the queue, there is an answer to it.

        Cancelled before its batch starts, the job is not scored. One that was `admitted` already
        is taken into a full queue too.

        Raises:
            NotScoredError: 429 if the queue is full, 503 if the server stops, 422 with the judge's
                reason, 500 if the judge failed.
        """
        if self.closing:
            raise NotScoredError(503, "the server is shutting down", retry_after=5)
        if not admitted:
            self.refuse_if_full(job)
        entry = Waiting(job, asyncio.get_running_loop().create_future())
        self.queue.append(entry)
        self.changed.set()
        try:
            return await entry.done
        except asyncio.CancelledError:
            if entry in self.queue:
                self.queue.remove(entry)
                self.metrics.dropped.add(amount=job.size)
            raise

    def refuse_if_full(self, job: Job) -> None:
        """Refuse a job that would wait with too many others, or for too long.

        A job of any size is taken where nothing is ahead of it, or a slow judge would score none.

        Raises:
            NotScoredError: 429, with the time after which there is room.
        """
        waiting, ahead = self.waiting_clips(), self.seconds_ahead()
        if waiting + job.size > self.max_queue:
            reason = f"{waiting} clips are waiting, at most {self.max_queue} may"
        elif ahead > self.max_queue_seconds:
            reason = (
                f"the work ahead takes about {ahead:.0f} s, at most {self.max_queue_seconds:g} s "
                "may be waited"
            )
        else:
            return
        # Not until all is done: the judge would have nothing to do before the clients are back.
        pause = max(1, min(60, math.ceil(ahead / 2)))
        raise NotScoredError(429, f"{reason}: retry later", retry_after=pause)

    def waiting_clips(self) -> int:
        """Clips in the queue."""
        return sum(entry.job.size for entry in self.queue)

    def seconds_ahead(self) -> float:
        """How long the batch in hand and all that waits will take, by the pace so far."""
        rest = max(0.0, self.busy_until - time.monotonic())
        return rest + self.pace.seconds(sum(entry.job.work for entry in self.queue))

    def hurry(self) -> None:
        """Let no job wait for others any more; may be called from a signal handler."""
        self.hurrying = True
        self.task.get_loop().call_soon_threadsafe(self.changed.set)

    async def close(self) -> None:
        """Take no more jobs, and return when all that were taken are answered."""
        self.closing = True
        self.changed.set()
        await self.task
        self.thread.shutdown()

    async def run(self) -> None:
        """Score batches until closed."""
        while self.queue or not self.closing:
            batch = self.next_batch()
            if batch is None:
                await self.wait_for_change()
                continue
            taken = set(map(id, batch))
            self.queue = [entry for entry in self.queue if id(entry) not in taken]
            await self.score_batch(batch)

    async def wait_for_change(self) -> None:
        """Sleep until a job arrives, or the oldest has waited long enough."""
        self.changed.clear()
        patience = None
        if self.queue:
            patience = self.queue[0].since + self.max_wait - time.monotonic()
        try:
            await asyncio.wait_for(self.changed.wait(), patience)
        except asyncio.TimeoutError:
            return

    def next_batch(self) -> list[Waiting] | None:
        """The jobs to score now; None if it is better to wait."""
        if not self.queue:
            return None
        batch = self.alike(self.queue[0])
        due = time.monotonic() >= self.queue[0].since + self.max_wait
        if due or self.hurrying or self.closing or self.is_full(batch):
            return batch
        seen = {self.queue[0].job.kind}
        for entry in self.queue:
            if entry.job.kind not in seen:
                seen.add(entry.job.kind)
                batch = self.alike(entry)
                if self.is_full(batch):
                    return batch
        return None

    def is_full(self, batch: Sequence[Waiting]) -> bool:
        """Whether waiting longer would not make a batch larger."""
        return sum(entry.job.size for entry in batch) >= self.max_batch_size

    def alike(self, first: Waiting) -> list[Waiting]:
        """That job and others of its kind, in the order of arrival, up to a batch."""
        batch, clips = [first], first.job.size
        for entry in self.queue:
            if entry is first or entry.job.kind != first.job.kind:
                continue
            if clips + entry.job.size > self.max_batch_size:
                break
            batch.append(entry)
            clips += entry.job.size
        return batch

    async def score_batch(self, batch: Sequence[Waiting]) -> None:
        """Score jobs in the thread and answer them, also after errors."""
        clips, began = sum(entry.job.size for entry in batch), time.monotonic()
        jobs = [entry.job for entry in batch]
        work = sum(job.work for job in jobs)
        self.busy_until = began + self.pace.seconds(work)
        running = asyncio.get_running_loop().run_in_executor(self.thread, self.score, jobs)
        await asyncio.wait([running])
        seconds = time.monotonic() - began
        self.pace.learn(work, seconds)
        self.busy_until = 0.0
        self.metrics.batch_clips.observe(clips)
        self.metrics.batch_seconds.observe(seconds)
        failure = running.exception()
        outcomes = [refusal(failure)] * len(batch) if failure else running.result()
        for entry, outcome in zip(batch, outcomes, strict=True):
            if entry.done.cancelled():
                continue
            if isinstance(outcome, NotScoredError):
                entry.done.set_exception(
                    NotScoredError(outcome.status, outcome.reason, outcome.retry_after)
                )
            elif isinstance(outcome, ValueError):
                entry.done.set_exception(NotScoredError(422, str(outcome)))
            else:
                entry.done.set_result(outcome)


def refusal(failure: BaseException) -> NotScoredError:
    """The message to clients when the judge failed; the log has the details."""
    logger.error("the judge failed", exc_info=failure)
    if is_out_of_memory(failure):
        return NotScoredError(503, "the judge ran out of memory", retry_after=10)
    return NotScoredError(500, f"the judge failed ({type(failure).__name__}): see the server's log")
