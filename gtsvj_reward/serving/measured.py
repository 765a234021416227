"""Counts every answer, whoever gave it."""

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gtsvj_reward.serving.metrics import Metrics


class Measured:
    """ASGI middleware that counts answers by path and status.

    Paths that are not served are counted as `other`, so that they cannot fill the memory.

    Args:
        app: the application inside.
        metrics: where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route: Any = scope.get("route")
                path = "other" if route is None else route.path
                self.metrics.requests.add(path, str(message["status"]))
            await send(message)

        await self.app(scope, receive, counted)
