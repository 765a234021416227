"""Scoring over HTTP: wire format, client, and the server behind `gtsvj serve`.

Importing this package, the protocol or the client imports neither FastAPI nor uvicorn.
"""

from gtsvj_reward.serving.client import (
    RefusedError as RefusedError,
    ScoreClient as ScoreClient,
    ScoreServerError as ScoreServerError,
)
from gtsvj_reward.serving.replies import ScoreReply as ScoreReply
