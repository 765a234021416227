"""uvicorn as `gtsvj serve` runs it: one process, patient with work and not with silence."""

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Protocol, runtime_checkable

import uvicorn
from fastapi import FastAPI

from gtsvj_reward.serving.access import check_address
from gtsvj_reward.serving.connections import BACKLOG, LimitedProtocol, affordable, report
from gtsvj_reward.serving.limits import MAX_HEAD_BYTES, Limits
from gtsvj_reward.serving.metrics import Metrics

logger = logging.getLogger(__name__)


@runtime_checkable
class Served(Protocol):
    """Interface of an application's `app.state.service`."""

    token: str | None
    limits: Limits
    metrics: Metrics

    def drain(self) -> None:
        """Called when the server is stopped."""


def serve(
    app: FastAPI,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str], None] = logger.info,
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was taken, and end by that signal.

    Args:
        app: from `create_app`, or another with a `Served` as its `state.service`.
        host: address to listen on; any but 127.0.0.1 requires a token.
        port: 0 picks a free one.
        announce: gets the address once the server listens.

    Raises:
        ValueError: for an address that other machines reach, without a token.
        OSError: if the port is taken.
    """
    service: Served = app.state.service
    check_address(host, service.token)
    with listening_socket(host, port) as listener:
        shown = f"[{host.strip('[]')}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        server = DrainingServer(configuration(app), service, lambda: announce(address))
        server.run(sockets=[listener])


def configuration(app: FastAPI) -> uvicorn.Config:
    """Settings of uvicorn that do not depend on other installed packages."""
    service: Served = app.state.service
    limits = service.limits

    class Limited(LimitedProtocol):
        """With the limits of this server."""

        most = affordable(limits.max_connections)
        seconds = limits.head_seconds
        refused = service.metrics.refused

    return uvicorn.Config(
        app,
        http=Limited,
        backlog=BACKLOG,
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=None,
    )


def listening_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on: 40 ms more for each small answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
    except OSError:
        listener.close()
        raise
    return listener


class DrainingServer(uvicorn.Server):
    """Announces when it listens, and reports a shutdown in `/healthz`.

    Args:
        config: of uvicorn.
        service: what is served.
        announce: called when it listens.
    """

    def __init__(
        self, config: uvicorn.Config, service: Served, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.service = service
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        asyncio.get_running_loop().set_exception_handler(report)
        await super().startup(sockets)
        self.announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop listening, answer what was received, end."""
        self.service.drain()
        super().handle_exit(sig, frame)
