"""A refitted judge takes the place of the one that is served, and no request is lost.

Requests that came before it are scored by the old judge, which goes when they are answered.
"""

import asyncio
from dataclasses import replace
from typing import Any

import torch
from fastapi import APIRouter, Request

from gtsvj_reward.reward import GTSVJReward, RewardOutput
from gtsvj_reward.serving.app import Service, read_job
from gtsvj_reward.serving.jobs import Job, admit, has_statistics, is_out_of_memory
from gtsvj_reward.serving.judges import ServedJudge
from gtsvj_reward.serving.limits import read_limited
from gtsvj_reward.serving.protocol import VERSION_HEADER, ScoreRequest
from gtsvj_reward.serving.refusals import NotScoredError

routes = APIRouter()


@routes.post("/v1/judges/{name}/reload")
async def reload(name: str, request: Request) -> dict[str, Any]:
    """Load a judge's checkpoint again, and serve it once it has scored the canary.

    The canary is the body, a request of `/v1/score`; without one it is noise.
    """
    service: Service = request.app.state.service
    service.authorise(request)
    if service.token is None:
        raise NotScoredError(403, "reloading requires a token: start the server with one")
    judge = service.judges.find(name)
    if judge.load is None:
        raise NotScoredError(
            409, f"{name!r} cannot be reloaded where there are replicas: restart the server"
        )
    with service.pending.hold() as held:
        body = await read_limited(request, held, service.limits)
        async with service.reloading:
            version = request.headers.get(VERSION_HEADER)
            return await replace_judge(service, judge, body, version)


async def replace_judge(
    service: Service, judge: ServedJudge, body: bytes, version: str | None
) -> dict[str, Any]:
    """Load, test, and only then replace; returns both judges' scores of the test clips.

    Raises:
        NotScoredError: 409 with the reason if the old judge stays.
    """
    old = judge.reward
    before = await answer_canary(service, old, body, version)
    new = await asyncio.to_thread(loaded, judge)
    new.batch_size = service.limits.max_batch_size
    inputs = [(r.config.text_input, r.config.image_input) for r in (old, new)]
    if not new.space.same_latents(old.space) or inputs[0] != inputs[1]:
        raise NotScoredError(
            409,
            f"the new judge scores {new.space.title()} with text_input {inputs[1][0]!r} and "
            f"image_input {inputs[1][1]!r}, the old one {old.space.title()} with {inputs[0][0]!r} "
            f"and {inputs[0][1]!r}: the old one stays, its clients' requests would fail",
        )
    try:
        after = await answer_canary(service, new, body, version)
    except NotScoredError as refusal:
        reason = f"the new judge did not score the canary, the old one stays: {refusal.reason}"
        raise NotScoredError(409, reason) from refusal
    judge.reward = new
    judge.loads += 1
    scores = {"before": before.rewards.tolist(), "after": after.rewards.tolist()}
    return {"judge": judge.name, "loads": judge.loads, **scores}


def loaded(judge: ServedJudge) -> GTSVJReward:
    """The judge's checkpoint as it is now.

    Raises:
        NotScoredError: 409 if it cannot be loaded, with the reason.
    """
    try:
        if judge.load is None:
            raise ValueError("it has no checkpoint")
        return judge.load()
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        if not isinstance(error, OSError | ValueError) and not is_out_of_memory(error):
            raise
        reason = f"the checkpoint cannot be loaded, the old judge stays: {error}"
        raise NotScoredError(409, reason) from error


async def answer_canary(
    service: Service, reward: GTSVJReward, body: bytes, version: str | None
) -> RewardOutput:
    """Scores of the canary, which waits in the queue like any request.

    Raises:
        NotScoredError: if it is no request, or cannot be scored.
    """
    if body:
        job = await asyncio.to_thread(read_job, service, reward, body, version, {})
    else:
        job = noise(reward)
    return await service.score(job, admitted=True)


def noise(reward: GTSVJReward) -> Job:
    """A clip of noise, of the smallest size that a judge was trained on, spread as such clips are.

    Raises:
        NotScoredError: 422 for a judge that needs more than that.
    """
    trained = reward.config.geometry
    if trained is None or reward.reads_text or reward.reads_image:
        raise NotScoredError(
            422,
            "this judge's canary must be sent: clips as for /v1/score, with prompts and "
            "images if it reads them",
        )
    size = (1, trained.latent_frames[0], reward.space.channels, trained.height[0], trained.width[0])
    clips = torch.randn(size, generator=torch.Generator().manual_seed(0))
    spread = reward.config.latent_statistics
    if spread is not None:
        mean, log_std = (torch.tensor(x).view(-1, 1, 1) for x in (spread.mean, spread.log_std))
        clips = mean + log_std.exp() * clips
    request = ScoreRequest(latents=clips, space_id=reward.space.id, space=reward.space)
    return admit(reward, replace(request, normalize=has_statistics(reward)), 1)
