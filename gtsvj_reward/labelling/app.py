"""The HTTP application of the labelling page: its files, its data, the videos."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse

from gtsvj_reward import pages
from gtsvj_reward.labelling import view
from gtsvj_reward.labelling.session import RefusedAnswerError, Session
from gtsvj_reward.serving.access import is_authorised, is_loopback
from gtsvj_reward.serving.app import bare_app
from gtsvj_reward.serving.limits import MIB, Limits, Pending, read_limited
from gtsvj_reward.serving.metrics import Metrics
from gtsvj_reward.serving.refusals import NotScoredError, answer_refusal

STATIC = Path(__file__).parent / "static"
SHARED = pages.STATIC
FILES = {
    "index.html": "text/html; charset=utf-8",
    "base.css": "text/css; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "players.js": "text/javascript; charset=utf-8",
    "panel.js": "text/javascript; charset=utf-8",
    "server.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""File of the page -> media type."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every answer: load only this server's own files, and never run names as code."""

LONGEST_NAME = 60
"""Characters of a rater's name."""


class Desk:
    """State shared by all routes; `app.state.service`, as the server wants it.

    Args:
        session: the session. token: the token of the page; None: nothing.
    """

    def __init__(self, session: Session, token: str | None) -> None:
        self.session, self.token = session, token
        self.limits = Limits(max_body_mib=0.0625, max_pending_mib=16)
        self.pending = Pending(self.limits.max_pending_mib * MIB)
        self.metrics = Metrics()
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        self.cookie = f"gtsvj_label_{digest[:12]}"

    def drain(self) -> None:
        """Nothing waits here."""

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Close the session when the server ends."""
        del app
        yield
        await asyncio.to_thread(self.session.close)

    def knows(self, given: str | None) -> bool:
        """Whether a text is the token."""
        return self.token is None or hmac.compare_digest(
            (given or "").encode(), self.token.encode()
        )

    def authorise(self, request: Request) -> None:
        """Refuse a request without the token; without one, any but for this machine's own names."""
        if self.token is None and not is_loopback(request.url.hostname or ""):
            raise NotScoredError(
                403, "without a token this server only accepts requests to 127.0.0.1"
            )
        header = request.headers.get("authorization")
        given = request.cookies.get(self.cookie) or request.query_params.get("token")
        if not (self.knows(given) or (header and is_authorised(header, self.token))):
            raise NotScoredError(
                401, "open the address that `gtsvj label` prints: it has the token"
            )


def create_app(session: Session, *, token: str | None) -> FastAPI:
    """The application of one session, for any ASGI server.

    Args:
        session: the session; closed when the application ends.
        token: the token of the page, in a cookie that its address with `?token=` sets, or as
            `Authorization: Bearer TOKEN`; None: nothing.
    """
    desk = Desk(session, token)
    app = bare_app(desk, desk.running)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        try:
            desk.authorise(request)
        except NotScoredError as refusal:
            response: Response = await answer_refusal(request, refusal)
        else:
            response = await call_next(request)
        response.headers.update(HEADERS)
        response.headers.setdefault("cache-control", "no-store")
        return response

    app.include_router(routes)
    return app


routes = APIRouter()


@routes.get("/")
async def page(request: Request) -> Response:
    """The page; with the token in its address it sets the cookie."""
    desk: Desk = request.app.state.service
    response = static("index.html")
    if desk.token is not None and desk.knows(request.query_params.get("token")):
        response.set_cookie(desk.cookie, desk.token, httponly=True, samesite="strict")
    return response


@routes.get("/static/{name}")
async def static_file(name: str) -> Response:
    """A file of the page."""
    if name not in FILES:
        raise NotScoredError(404, "there is no such file")
    return static(name)


def static(name: str) -> Response:
    """A file of the page."""
    folder = SHARED if name == "base.css" else STATIC
    return Response((folder / name).read_bytes(), media_type=FILES[name])


@routes.get("/video/{number}")
async def video(request: Request, number: int) -> Response:
    """A video, or the requested range of it."""
    desk: Desk = request.app.state.service
    try:
        path = await asyncio.to_thread(desk.session.clips.file_of, number)
    except FileNotFoundError as error:
        raise NotScoredError(404, str(error)) from error
    kind = desk.session.clips[number].media_type
    return FileResponse(path, media_type=kind, headers={"cache-control": "private, max-age=3600"})


@routes.get("/api/settings")
async def settings(request: Request) -> Response:
    """The constant data of a page."""
    return JSONResponse(view.settings(session_of(request)))


@routes.get("/api/progress")
async def progress(request: Request) -> Response:
    """Progress of the judge."""
    return JSONResponse(await asyncio.to_thread(view.progress, session_of(request)))


@routes.get("/api/clips")
async def clips(request: Request) -> Response:
    """A part of the list of clips."""
    query = dict(request.query_params)
    try:
        return JSONResponse(await asyncio.to_thread(view.listing, session_of(request), query))
    except ValueError as error:
        raise NotScoredError(422, str(error)) from error


@routes.post("/api/{action}")
async def act(request: Request, action: str) -> Response:
    """Apply a rater's action, and return the next task."""
    if action not in ACTIONS:
        raise NotScoredError(404, f"expected one of {list(ACTIONS)}, got {action!r}")
    desk: Desk = request.app.state.service
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise NotScoredError(415, "the body must be application/json")
    with desk.pending.hold() as held:
        body = await read_limited(request, held, desk.limits)
    try:
        said = json.loads(body)
        rater = rater_of(said)
        found = await asyncio.to_thread(ACTIONS[action], desk.session, rater, said)
    except RefusedAnswerError as error:
        raise NotScoredError(409, str(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise NotScoredError(422, f"not a request of this page: {error}") from error
    return JSONResponse(found)


def session_of(request: Request) -> Session:
    """The session behind a request."""
    desk: Desk = request.app.state.service
    return desk.session


def rater_of(said: Any) -> str:
    """Name of the rater.

    Raises:
        ValueError: for a name that is empty, too long, or not to be printed.
    """
    name = " ".join(str(said["rater"]).split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a rater has a name of 1 to {LONGEST_NAME} printable characters")
    return name


def next_task(session: Session, rater: str, said: Any) -> dict[str, Any]:
    """The task that a rater has."""
    del said
    return view.desk(session, rater)


def answer(session: Session, rater: str, said: Any) -> dict[str, Any]:
    """Take an answer; the next task."""
    seconds = said.get("seconds")
    session.answer(
        rater,
        said["ticket"],
        label=said.get("label"),
        scores=said.get("scores"),
        seconds=None if seconds is None else round(float(seconds), 3),
    )
    return view.desk(session, rater)


def skip(session: Session, rater: str, said: Any) -> dict[str, Any]:
    """Pass over a task; the next one."""
    session.skip(rater, said["ticket"], said["reason"], tuple(said.get("broken", ())))
    return view.desk(session, rater)


def undo(session: Session, rater: str, said: Any) -> dict[str, Any]:
    """Take the last answer back; its task."""
    del said
    session.undo(rater)
    return view.desk(session, rater)


def checkpoint(session: Session, rater: str, said: Any) -> dict[str, Any]:
    """Write the judge."""
    del rater, said
    folder = session.checkpoint()
    return {"folder": str(folder), "labels": session.answered()}


ACTIONS: dict[str, Callable[[Session, str, Any], dict[str, Any]]] = {
    "task": next_task,
    "answer": answer,
    "skip": skip,
    "undo": undo,
    "checkpoint": checkpoint,
}
"""Actions that can be posted."""
