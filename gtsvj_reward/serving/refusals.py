"""Every answer that is not a score: status, reason, and when to come back."""

from fastapi import Request
from fastapi.responses import JSONResponse


class NotScoredError(Exception):
    """A request that is not answered with a score.

    Args:
        status: of HTTP.
        reason: for the client.
        retry_after: seconds after which the same request may be taken.
    """

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


async def answer_refusal(request: Request, refusal: Exception) -> JSONResponse:
    """The HTTP answer to a rejected request: `{"detail": reason}`."""
    del request
    if not isinstance(refusal, NotScoredError):
        raise refusal
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"detail": refusal.reason}, refusal.status, headers)
