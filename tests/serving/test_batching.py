"""The queue by itself: which jobs share a batch, when it starts, and what a failure does."""

import asyncio
import logging
import threading
import time

import pytest
import torch

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.serving.batching import Batcher
from gtsvj_reward.serving.jobs import Job
from gtsvj_reward.serving.metrics import Metrics
from gtsvj_reward.serving.refusals import NotScoredError
from tests.serving.server import reward_of

REWARD = reward_of()
"""That of all jobs here; `Scorer` scores in its place."""


def job(value=0.0, *, count=1, width=1):
    clips = torch.full((count, 1, 1, 1, width), float(value))
    return Job(reward=REWARD, clips=clips, text=None, scale=(0.0, 1.0), notes=(None,) * count)


class Scorer:
    """Gives each clip its first value as its score, and keeps what it was asked."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.batches = []
        self.failures = {}

    def __call__(self, jobs):
        assert len({one.kind for one in jobs}) == 1
        values = [one.clips.flatten()[0].item() for one in jobs]
        self.batches.append([(value, one.size) for value, one in zip(values, jobs, strict=True)])
        self.begun.set()
        assert self.go.wait(60)
        time.sleep(self.seconds)
        if values[0] in self.failures:
            raise self.failures[values[0]]
        return [output(one) for one in jobs]


def output(one):
    raw = one.clips[:, 0, 0, 0, 0]
    return RewardOutput(rewards=raw, raw=raw, trajectory=list(raw[:, None]))


def run(scorer, use, **options):
    """Run `use(batcher)` with a batcher in an event loop, and close it."""

    async def inside():
        settings = {"max_batch_size": 4, "max_wait": 0.05, "max_queue": 100,
                    "max_queue_seconds": 1000.0}  # fmt: skip
        batcher = Batcher(scorer, metrics=Metrics(), **{**settings, **options})
        try:
            return await asyncio.wait_for(use(batcher), 60)
        finally:
            await batcher.close()

    return asyncio.run(inside())


async def submit_all(batcher, jobs):
    return await asyncio.gather(*map(batcher.submit, jobs), return_exceptions=True)


def test_every_job_gets_its_own_scores():
    jobs = [job(value, count=1 + value % 3, width=1 + value % 2) for value in range(30)]
    scorer = Scorer()
    outputs = run(scorer, lambda batcher: submit_all(batcher, jobs))
    for one, found in zip(jobs, outputs, strict=True):
        assert torch.equal(found.raw, one.clips[:, 0, 0, 0, 0])
    assert sum(len(batch) for batch in scorer.batches) == 30
    assert len(scorer.batches) < 30
    assert all(sum(size for _, size in batch) <= 4 for batch in scorer.batches)


def test_a_full_batch_starts_at_once():
    async def timed(batcher):
        began = time.monotonic()
        await submit_all(batcher, [job(value) for value in range(4)])
        return time.monotonic() - began

    scorer = Scorer()
    assert run(scorer, timed, max_wait=60.0) < 30
    assert [len(batch) for batch in scorer.batches] == [4]


def test_a_lone_job_starts_after_the_wait():
    async def timed(batcher):
        began = time.monotonic()
        await batcher.submit(job(9))
        return time.monotonic() - began

    assert run(Scorer(), timed, max_wait=0.3) >= 0.3
    assert run(Scorer(), timed, max_wait=0.0) >= 0


def test_what_arrives_while_a_batch_is_scored_is_one_batch():
    async def use(batcher):
        first = asyncio.create_task(batcher.submit(job(0)))
        await asyncio.to_thread(scorer.begun.wait, 120)
        later = [asyncio.create_task(batcher.submit(job(value))) for value in (1, 2, 3)]
        await asyncio.sleep(0)  # they are in the queue
        scorer.go.set()
        await asyncio.gather(first, *later)

    scorer = Scorer()
    scorer.go.clear()
    run(scorer, use, max_wait=0.0)
    assert [len(batch) for batch in scorer.batches] == [1, 3]


def test_no_kind_starves():
    """A job of a rare kind is scored second, whatever else arrives after it."""

    async def use(batcher):
        common = [asyncio.create_task(batcher.submit(job(0))) for _ in range(4)]
        rare = asyncio.create_task(batcher.submit(job(7, width=3)))
        common += [asyncio.create_task(batcher.submit(job(1))) for _ in range(20)]
        await asyncio.gather(rare, *common)

    scorer = Scorer(seconds=0.05)
    run(scorer, use, max_wait=0.01)
    assert (7.0, 1) in scorer.batches[1]


def test_a_full_batch_goes_before_a_lone_job_that_may_wait():
    async def use(batcher):
        await submit_all(batcher, [job(7, width=3), *(job(value) for value in range(4))])

    scorer = Scorer()
    run(scorer, use, max_wait=0.5)
    assert [len(batch) for batch in scorer.batches] == [4, 1]


def test_a_request_larger_than_a_batch_stays_together():
    scorer = Scorer()
    found = run(scorer, lambda batcher: batcher.submit(job(5, count=9)))
    assert len(found.raw) == 9
    assert scorer.batches == [[(5.0, 9)]]


def test_a_full_queue_refuses_with_an_estimate():
    async def use(batcher):
        await batcher.submit(job(0))  # to learn the pace
        scorer.begun.clear()
        scorer.go.clear()
        running = asyncio.create_task(batcher.submit(job(1)))
        await asyncio.to_thread(scorer.begun.wait, 120)
        waiting = [asyncio.create_task(batcher.submit(job(2))) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(NotScoredError) as refused:
            await batcher.submit(job(3))
        scorer.go.set()
        await asyncio.gather(running, *waiting)
        return refused.value

    scorer = Scorer(seconds=0.6)
    refused = run(scorer, use, max_queue=10, max_wait=0.0)
    assert refused.status == 429
    assert 1 <= refused.retry_after <= 60


def test_work_that_takes_too_long_is_refused_by_the_pace_so_far():
    """2 s per clip, known from the first: after three clips ahead, 6 s, the next must come back."""

    async def use(batcher):
        batcher.pace.learn(units=1, seconds=2.0)
        first = asyncio.create_task(batcher.submit(job(0)))
        await asyncio.to_thread(scorer.begun.wait, 120)
        waiting = [asyncio.create_task(batcher.submit(job(value))) for value in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(NotScoredError, match="the work ahead takes about") as refused:
            await batcher.submit(job(3))
        scorer.go.set()
        await asyncio.gather(first, *waiting)
        await batcher.submit(job(4, count=50))  # 100 s, but nothing is ahead
        return refused.value

    scorer = Scorer()
    scorer.go.clear()
    refused = run(scorer, use, max_wait=0.0, max_queue_seconds=4.5)
    assert refused.status == 429
    assert refused.retry_after == 3  # half of 6 s, the first job has hardly begun
    assert [(4.0, 50)] in scorer.batches


def test_a_job_that_nobody_waits_for_is_not_scored():
    async def use(batcher):
        first = asyncio.create_task(batcher.submit(job(0)))
        await asyncio.to_thread(scorer.begun.wait, 120)
        later = [asyncio.create_task(batcher.submit(job(value))) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        later[1].cancel()
        await asyncio.sleep(0)
        scorer.go.set()
        await asyncio.gather(first, later[0], later[2])
        return batcher.metrics.dropped.values

    scorer = Scorer()
    scorer.go.clear()
    dropped = run(scorer, use, max_wait=0.0)
    assert scorer.batches == [[(0.0, 1)], [(1.0, 1), (3.0, 1)]]
    assert dropped == {(): 1}


def test_closing_answers_what_is_waiting_and_takes_no_more():
    async def use(batcher):
        waiting = [asyncio.create_task(batcher.submit(job(value))) for value in range(6)]
        await asyncio.sleep(0.05)
        await batcher.close()
        with pytest.raises(NotScoredError) as refused:
            await batcher.submit(job(9))
        return [task.result().raw.item() for task in waiting], refused.value

    values, refused = run(Scorer(seconds=0.05), use, max_wait=60.0)
    assert values == [0, 1, 2, 3, 4, 5]
    assert refused.status == 503
    assert refused.retry_after


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (RuntimeError("a secret path"), 500),
        (torch.OutOfMemoryError("CUDA out of memory"), 503),
        (MemoryError(), 503),
    ],
)
def test_a_failing_judge_fails_its_batch_and_nothing_else(failure, status, caplog):
    async def use(batcher):
        bad, good = [job(1, width=2), job(2, width=2)], [job(3), job(4)]
        return await submit_all(batcher, [*bad, *good])

    scorer = Scorer()
    scorer.failures = {1.0: failure}
    with caplog.at_level(logging.ERROR):
        first, second, third, fourth = run(scorer, use)
    assert (first.status, second.status) == (status, status)
    assert "secret" not in first.reason
    assert (third.raw.item(), fourth.raw.item()) == (3.0, 4.0)
    assert "the judge failed" in caplog.text


def test_the_reason_of_a_refusal_is_the_judges():
    async def use(batcher):
        with pytest.raises(NotScoredError, match="no such thing") as refused:
            await batcher.submit(job())
        return refused.value.status

    assert run(lambda jobs: [ValueError("no such thing")], use) == 422


def test_the_judge_runs_in_a_thread_of_its_own():
    threads = set()

    def score(jobs):
        threads.add(threading.current_thread().name)
        return [output(one) for one in jobs]

    run(score, lambda batcher: submit_all(batcher, [job(value) for value in range(20)]))
    assert len(threads) == 1
    assert threading.current_thread().name not in threads
