"""The wire format of UniRL's remote reward service, for videos: `/score`, `/health`, `/rewards`.

Written against Tencent-Hunyuan/UniRL: `unirl-reward-service/reward_service/schemas.py` for the
server's side and `unirl/reward/remote.py` (`RemoteRewardBackend`) for the trainer's. It has no
field for latents: this is the way in from pixels, there only if the server was given a VAE.

A clip that cannot be scored is reported under `errors`, as the format has it, which stops the
trainer; a request that is none is refused as a whole.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.serving.app import Service
from gtsvj_reward.serving.bodies import MalformedError, read_json
from gtsvj_reward.serving.encoder import Share
from gtsvj_reward.serving.jobs import admit, has_statistics
from gtsvj_reward.serving.limits import read_limited
from gtsvj_reward.serving.presence import while_present
from gtsvj_reward.serving.refusals import NotScoredError
from gtsvj_reward.serving.replies import by_name
from gtsvj_reward.serving.videos import VideoReader

NAME = "gtsvj"
"""The name to list in the trainer's `required_rewards`."""

MAX_PARTS = 1 << 16
"""Brackets, commas and colons of a body. Each can begin a value, which takes 60 bytes or more: a
body full of them would take 30 times its size and block the server for seconds."""


def unirl_routes(reader: VideoReader) -> APIRouter:
    """The three routes, over videos that `reader` encodes one after the other."""
    routes = APIRouter()

    @routes.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "rewards": {NAME: ["ok"]}}

    @routes.get("/rewards")
    async def rewards() -> dict[str, list[str]]:
        return {"rewards": [NAME]}

    @routes.post("/score")
    async def score(request: Request) -> dict[str, list[dict[str, Any]]]:
        service: Service = request.app.state.service
        service.authorise(request)
        with service.pending.hold() as held:
            body = await read_limited(request, held, service.limits)
            read = partial(read_videos, max_clips=service.limits.max_clips)
            videos = await service.encoder.parse(read, body)
            del body
            with service.encoder.hold(len(videos)) as share:
                scores = (score_video(service, reader, share, *each) for each in videos)
                outcomes = await while_present(request, outcomes_of(scores))
        return answer(outcomes, has_statistics(service.reward))

    return routes


async def outcomes_of(
    scores: Iterable[Awaitable[RewardOutput]],
) -> list[RewardOutput | BaseException]:
    """Scores, or why there are none, of all videos of a request at the same time."""
    return await asyncio.gather(*scores, return_exceptions=True)


async def score_video(
    service: Service,
    reader: VideoReader,
    share: Share,
    video: str,
    prompt: str,
    image: str | None,
) -> RewardOutput:
    """Encode one video, then score it together with other queued clips.

    Raises:
        NotScoredError: 422 for a video that cannot be scored; errors of the queue.
    """
    try:
        request = await share.encode(partial(reader.request, video, prompt, image))
        reward = service.reward
        job = admit(reward, replace(request, normalize=has_statistics(reward)), 1)
    except ValueError as error:
        raise NotScoredError(422, str(error)) from error
    # It was admitted with all videos of its request: encoding them again would cost more.
    return await service.score(job, admitted=True)


def answer(
    outcomes: Sequence[RewardOutput | BaseException], normalized: bool
) -> dict[str, list[dict[str, Any]]]:
    """Scores and errors in the trainer's format; the score comes first, which it takes.

    Raises:
        NotScoredError: where the queue or the judge failed, so that all is sent again.
    """
    results: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, NotScoredError) and outcome.status == 422:
            results.append({})
            errors.append({NAME: outcome.reason})
            continue
        if isinstance(outcome, BaseException):
            raise outcome
        scores = by_name(outcome, normalized)
        results.append({NAME: {name: values[0] for name, values in scores.items()}})
        errors.append({})
    return {"results": results, "errors": errors}


def read_videos(body: bytes, max_clips: int) -> list[tuple[str, str, str | None]]:
    """The last video of each request in a body, in base64, its prompt, and its image if any.

    The reference image is that of the video's own turn, or of the one before it.

    Raises:
        NotScoredError: 400 for a body of another format or with unsupported requests; 422 for too
            many videos.
    """
    parts = sum(map(body.count, (b"[", b"{", b",", b":")))
    if parts > MAX_PARTS:
        reason = f"the body has {parts} brackets, commas and colons, at most {MAX_PARTS} are read"
        raise NotScoredError(400, reason)
    try:
        values = read_json(body, "the body")
    except MalformedError as error:
        raise NotScoredError(400, str(error)) from error
    requests = values.get("requests") if isinstance(values, dict) else None
    if not isinstance(requests, list):
        raise NotScoredError(400, "the body must be a JSON object with a list of `requests`")
    if len(requests) > max_clips:
        reason = f"{len(requests)} videos in one request, at most {max_clips} are taken"
        raise NotScoredError(422, f"{reason}: lower the trainer's `batch_size`")
    return [read_video_of(entry, index) for index, entry in enumerate(requests)]


def read_video_of(entry: Any, index: int) -> tuple[str, str, str | None]:
    """The video of one request, its prompt and image; see `read_videos`."""
    where = f"requests[{index}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("history"), list):
        raise NotScoredError(400, f"{where} must be an object with a `history`")
    names = entry.get("required_rewards")
    if names != [NAME]:
        raise NotScoredError(
            400, f"{where}: this server has the reward {NAME!r}, requested: {names!r}"[:500]
        )
    turn = entry["history"][-1] if entry["history"] else None
    if not isinstance(turn, dict) or not isinstance(turn.get("text"), str):
        raise NotScoredError(400, f"{where}: the last turn must be an object with a `text`")
    if turn.get("video_path") is not None:
        raise NotScoredError(400, f"{where}: `video_path` is not read, send `video_b64`")
    if not isinstance(turn.get("video_b64"), str):
        raise NotScoredError(
            400, f"{where}: the last turn has no `video_b64`: set the trainer's `input_kind: video`"
        )
    before = entry["history"][-2:-1]
    images = [x.get("image_b64") for x in (turn, *before) if isinstance(x, dict)]
    found = next((image for image in images if image is not None), None)
    if found is not None and not isinstance(found, str):
        raise NotScoredError(400, f"{where}: `image_b64` must be a string")
    return turn["video_b64"], turn["text"], found
