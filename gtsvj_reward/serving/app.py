"""The HTTP application: `/v1/score`, that of each judge, `/healthz`, `/metrics`."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gtsvj_reward.reward import GTSVJReward, RewardOutput
from gtsvj_reward.serving.access import is_authorised
from gtsvj_reward.serving.batching import Batcher
from gtsvj_reward.serving.encoder import Encoder
from gtsvj_reward.serving.jobs import Job, admit, score_jobs
from gtsvj_reward.serving.judges import Judges, ServedJudge, as_judges
from gtsvj_reward.serving.limits import MIB, Limits, Pending, read_limited
from gtsvj_reward.serving.measured import Measured
from gtsvj_reward.serving.metrics import Gauge, Metrics
from gtsvj_reward.serving.presence import while_present
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    HOST_VERSION,
    JUDGE_PATH,
    PATH,
    VERSION,
    VERSION_HEADER,
    MalformedError,
    read_request,
)
from gtsvj_reward.serving.refusals import NotScoredError, answer_refusal
from gtsvj_reward.serving.replies import ScoreReply, write_reply


class Service:
    """Judges behind one queue, and what all routes share.

    Args:
        judges: their `batch_size` is set to that of the limits.
        limits: limits on requests.
        token: the token of clients; None: nothing.
    """

    encoder: Encoder
    """Made when the application starts, in the process that runs it."""

    def __init__(self, judges: Judges, limits: Limits, token: str | None) -> None:
        self.judges = judges
        self.limits = limits
        self.token = token
        self.metrics = Metrics()
        self.pending = Pending(limits.max_pending_mib * MIB)
        self.draining = False
        self.batcher: Batcher | None = None
        self.reloading = asyncio.Lock()
        for judge in judges.named.values():
            judge.reward.batch_size = limits.max_batch_size
        self.metrics.gauges += [
            Gauge("gtsvj_waiting_clips", "Clips in the queue.", self.waiting_clips),
            Gauge("gtsvj_pending_bytes", "Bytes of bodies in hand.", lambda: self.pending.total),
        ]

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Take jobs while the application runs; answer all of them before it ends."""
        del app
        self.batcher = Batcher(
            score_jobs,
            max_batch_size=self.limits.max_batch_size,
            max_wait=self.limits.max_wait_ms / 1000,
            max_queue=self.limits.max_queue,
            max_queue_seconds=self.limits.max_queue_seconds,
            metrics=self.metrics,
        )
        self.encoder = Encoder(self.limits)
        yield
        await self.batcher.close()
        self.encoder.close()

    def drain(self) -> None:
        """Report the shutdown in `/healthz`, and score queued jobs without waiting for more."""
        self.draining = True
        if self.batcher is not None:
            self.batcher.hurry()

    def waiting_clips(self) -> int:
        """Clips in the queue."""
        return 0 if self.batcher is None else self.batcher.waiting_clips()

    def authorise(self, request: Request) -> None:
        """Refuse a request without the token."""
        if not is_authorised(request.headers.get("authorization"), self.token):
            raise NotScoredError(401, "this server needs its token: `Authorization: Bearer TOKEN`")

    async def score(self, job: Job, *, admitted: bool = False) -> RewardOutput:
        """Scores of a job; an admitted job is not rejected for lack of space."""
        if self.batcher is None:
            raise NotScoredError(503, "the server is not running yet", retry_after=1)
        output = await self.batcher.submit(job, admitted=admitted)
        self.metrics.clips.add(amount=job.size)
        return output

    async def score_all(self, jobs: Mapping[str, Job]) -> dict[str, RewardOutput]:
        """Scores by each judge of a request; the queue takes all of its jobs, or rejects it.

        When one judge fails, the jobs of the others are cancelled.

        Args:
            jobs: by the name of their judge.

        Raises:
            NotScoredError: that of the judge that failed, with its name.
        """
        if self.batcher is not None:
            for job in jobs.values():
                self.batcher.refuse_if_full(job)
        tasks = {
            name: asyncio.ensure_future(named(name, self.score(job, admitted=True)))
            for name, job in jobs.items()
        }
        try:
            outputs = await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return dict(zip(tasks, outputs, strict=True))

    @property
    def reward(self) -> GTSVJReward:
        """The judge that answers where none is named, as it is now."""
        return self.judges.default.reward

    def describe(self) -> dict[str, Any]:
        """The content of `/healthz`: the default judge, and all judges by name."""
        return {
            "status": "draining" if self.draining else "ok",
            "protocol_versions": [HOST_VERSION, VERSION],
            **self.judges.default.describe(),
            "judges": {name: judge.describe() for name, judge in self.judges.named.items()},
            "limits": vars(self.limits),
        }


async def named(judge: str, scores: Awaitable[RewardOutput]) -> RewardOutput:
    """Scores of one of several judges, with its name in errors."""
    try:
        return await scores
    except NotScoredError as error:
        reason = f"judge {judge!r}: {error.reason}"
        raise NotScoredError(error.status, reason, error.retry_after) from error


def create_app(
    reward: GTSVJReward,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    routers: Sequence[APIRouter] = (),
    judges: Mapping[str, GTSVJReward] | None = None,
    loaders: Mapping[str, Callable[[], GTSVJReward]] | None = None,
) -> FastAPI:
    """The application of one judge or several, for any ASGI server.

    Args:
        reward: the default judge, named `default`.
        limits: limits on requests; default: those of `Limits`.
        token: the token of clients, see `access.py`; None: nothing.
        routers: further routes, which find the service in `request.app.state.service`.
        judges: name -> further judges.
        loaders: name -> what loads the checkpoint again, for judges that can be reloaded.

    Raises:
        ValueError: for a name that could not be part of a URL.
    """
    service = Service(as_judges(reward, judges or {}, loaders or {}), limits or Limits(), token)
    app = bare_app(service, service.running)
    app.add_middleware(Measured, metrics=service.metrics)
    for router in (routes, *routers):
        app.include_router(router)
    return app


def bare_app(service: Any, lifespan: Any) -> FastAPI:
    """An application with a service and error handlers, without routes.

    It has no FastAPI documentation pages, which would be public.
    """
    app = FastAPI(
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.service = service
    app.add_exception_handler(NotScoredError, answer_refusal)
    return app


routes = APIRouter()


@routes.post(PATH)
async def score(request: Request) -> Response:
    """Score the clips of a body of protocol version 1 or 2."""
    service: Service = request.app.state.service
    service.authorise(request)
    return await score_with(service, service.judges.default, request)


@routes.post(JUDGE_PATH)
async def score_by_name(name: str, request: Request) -> Response:
    """The same, with a judge by name."""
    service: Service = request.app.state.service
    service.authorise(request)
    return await score_with(service, service.judges.find(name), request)


async def score_with(service: Service, judge: ServedJudge, request: Request) -> Response:
    """The answer to a request for scores."""
    content_type = request.headers.get("content-type", CONTENT_TYPE).partition(";")[0].strip()
    if content_type.lower() != CONTENT_TYPE:
        raise NotScoredError(
            415, f"the body must be {CONTENT_TYPE} (safetensors), got {content_type!r}"
        )
    began, version = time.monotonic(), request.headers.get(VERSION_HEADER)
    with service.pending.hold() as held:
        body = await read_limited(request, held, service.limits)
        query = request.query_params
        job = await asyncio.to_thread(read_job, service, judge.reward, body, version, query)
        del body
        output = await while_present(request, service.score(job))
        answer = write_reply(ScoreReply.from_output(output), version or VERSION)
    service.metrics.request_seconds.observe(time.monotonic() - began)
    return Response(answer, media_type="application/json")


def read_job(
    service: Service, reward: GTSVJReward, body: bytes, version: str | None, query: Any
) -> Job:
    """The job in a body, for a judge.

    Raises:
        NotScoredError: 400 for a malformed request, 422 for what the judge cannot score.
    """
    try:
        request = read_request(body, version, dict(query))
    except MalformedError as error:
        raise NotScoredError(400, str(error)) from error
    try:
        return admit(reward, request, service.limits.max_clips)
    except ValueError as error:
        raise NotScoredError(422, str(error)) from error


@routes.get("/healthz")
async def healthz(request: Request) -> Response:
    """Whether the server takes requests, and what it scores; needs no token."""
    service: Service = request.app.state.service
    retry = {"retry-after": "5"} if service.draining else None
    return JSONResponse(service.describe(), 503 if service.draining else 200, retry)


@routes.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counts and times, for Prometheus."""
    service: Service = request.app.state.service
    service.authorise(request)
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")
