"""The wire format of cosmos-rl's reward service, for latents: `/api/reward/enqueue` and `/pull`.

Written against nvidia-cosmos/cosmos-rl: `cosmos_rl/reward/remote_calculator.py` for the trainer's
side and `reward_service/cosmos_rl_reward` for the server's. A request is a line of JSON and a
NumPy file; its answer is a ticket, for which the scores are fetched later, one reward at a time.

Here a request is scored before it is answered, so that what cannot be scored is refused at once.
The ticket holds the scores: no memory is kept for it, and every replica can answer it.
"""

import asyncio
import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import torch
from fastapi import APIRouter, Request
from torch import Tensor

from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.serving.app import Service
from gtsvj_reward.serving.bodies import MalformedError, read_json
from gtsvj_reward.serving.jobs import Job, admit, has_statistics
from gtsvj_reward.serving.limits import read_limited
from gtsvj_reward.serving.presence import while_present
from gtsvj_reward.serving.protocol import ScoreRequest
from gtsvj_reward.serving.refusals import NotScoredError
from gtsvj_reward.serving.replies import by_name

MAX_LINE_BYTES = 1 << 20
"""Of the JSON before the latents; prompts of 48 clips take some 30 thousand."""

MAX_TICKET_MIB = 4.0
"""Of the form that fetches scores; those of 256 clips by ten judges take under one."""

NUMPY_FILE = re.compile(
    rb"\x93NUMPY\x01\x00..{'descr': '(<f2|<f4)', 'fortran_order': False, "
    rb"'shape': \((\d{1,9}(?:, \d{1,9}){4})\), } *\n",
    re.DOTALL,
)
"""How `numpy.save` begins a file of five axes: nothing of it is evaluated."""

routes = APIRouter()


@routes.post("/api/reward/enqueue")
async def enqueue(request: Request) -> dict[str, str]:
    """Score the latents of a request with each judge that it names."""
    service: Service = request.app.state.service
    service.authorise(request)
    with service.pending.hold() as held:
        body = await read_limited(request, held, service.limits)
        query = dict(request.query_params)
        jobs = await asyncio.to_thread(read_jobs, service, body, query)
        del body
        outputs = await while_present(request, service.score_all(jobs))
    scores = {
        name: by_name(output, has_statistics(jobs[name].reward)) for name, output in outputs.items()
    }
    return {"uuid": write_ticket(scores)}


@routes.post("/api/reward/pull")
async def pull(request: Request) -> dict[str, Any]:
    """The scores of one judge in a ticket."""
    service: Service = request.app.state.service
    service.authorise(request)
    largest = min(MAX_TICKET_MIB, service.limits.max_body_mib)
    with service.pending.hold() as held:
        body = await read_limited(request, held, replace(service.limits, max_body_mib=largest))
        name, found = await asyncio.to_thread(read_form, body)
    if name not in found:
        raise NotScoredError(400, f"the ticket has scores of {sorted(found)}, not of {name[:80]!r}")
    return {"scores": found[name], "type": name}


def read_jobs(service: Service, body: bytes, query: Mapping[str, str]) -> dict[str, Job]:
    """Judge -> the job of a request for it.

    Raises:
        NotScoredError: 400 for a malformed request, 422 for what a judge cannot score.
    """
    line, _, file = body.partition(b"\n")
    try:
        if set(query) != {"latent_space_id"}:
            raise MalformedError(
                "the format has no latent space: name it in the URL, "
                f"/api/reward/enqueue?latent_space_id=..., got {sorted(query)}"
            )
        values = read_line(line)
        latents = read_latents(file)
        request = ScoreRequest(
            latents=latents,
            space_id=query["latent_space_id"],
            fps=frame_rate(values.get("video_infos"), len(latents)),
        )
        names = asked_of(values)
        if len(values["prompts"]) != len(request):
            count = len(values["prompts"])
            raise MalformedError(f"got {count} prompts for {len(request)} clips")
    except MalformedError as error:
        raise NotScoredError(400, str(error)) from error
    judges = {name: service.judges.find(name).reward for name in names}
    return {name: job_of(name, reward, request, service) for name, reward in judges.items()}


def job_of(name: str, reward: GTSVJReward, request: ScoreRequest, service: Service) -> Job:
    """The job of one judge.

    Raises:
        NotScoredError: 422 for what it cannot score, with its name.
    """
    own = ScoreRequest(**{**vars(request), "normalize": has_statistics(reward)})
    try:
        return admit(reward, own, service.limits.max_clips)
    except ValueError as error:
        raise NotScoredError(422, f"judge {name!r}: {error}") from error


def read_line(line: bytes) -> dict[str, Any]:
    """The JSON before the latents."""
    if len(line) > MAX_LINE_BYTES:
        raise MalformedError(f"the first line has {len(line)} bytes, at most {MAX_LINE_BYTES}")
    values = read_json(line, "the first line")
    if not isinstance(values, dict):
        raise MalformedError("the first line must be a JSON object")
    kind = values.get("media_type", "latent")
    if kind != "latent":
        raise MalformedError(f"`media_type` must be 'latent', got {str(kind)[:20]!r}")
    prompts = values.get("prompts")
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        raise MalformedError("`prompts` must be a list of texts, one per clip")
    return values


def asked_of(values: Mapping[str, Any]) -> list[str]:
    """The judges that a request names with a positive weight; the trainer weighs itself."""
    weights = values.get("reward_fn")
    if not isinstance(weights, dict) or not all(map(is_number, weights.values())):
        raise MalformedError("`reward_fn` must be an object: name of a judge -> weight")
    names = [name for name, weight in weights.items() if weight > 0]
    if not names:
        raise MalformedError("`reward_fn` names no judge with a positive weight")
    return names


def frame_rate(infos: Any, clips: int) -> float | None:
    """Frames per second of all clips of a request; None if it says nothing."""
    if infos is None:
        return None
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise MalformedError("`video_infos` must be a list of objects")
    if len(infos) != clips:
        raise MalformedError(f"got {len(infos)} `video_infos` for {clips} clips: send one for each")
    rates = [info.get("video_fps") for info in infos]
    if any(not is_number(rate) or rate <= 0 or rate != rates[0] for rate in rates):
        raise MalformedError(f"`video_fps` must be one positive number for all clips, got {rates}")
    return float(rates[0])


def is_number(value: Any) -> bool:
    """A finite number."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def read_latents(file: bytes) -> Tensor:
    """Latents (clip, time, channel, height, width) of a NumPy file, which has channels first."""
    found = NUMPY_FILE.match(file)
    if found is None or found.end() != 10 + int.from_bytes(file[8:10], "little"):
        raise MalformedError(
            "expected a NumPy file after the first line: latents (clip, channel, time, height, "
            f"width) of float16 or float32 in C order, got {file[:128]!r}"
        )
    dtype = np.dtype(found[1].decode())
    shape = tuple(int(size) for size in found[2].split(b", "))
    size = math.prod(shape) * dtype.itemsize
    if len(file) - found.end() != size or min(shape) < 1:
        given = len(file) - found.end()
        raise MalformedError(f"latents of shape {shape} have {size} bytes, got {given}")
    values = np.frombuffer(file, dtype, offset=found.end()).reshape(shape).copy()
    return torch.from_numpy(values).transpose(1, 2)


def read_form(body: bytes) -> tuple[str, dict[str, Any]]:
    """The judge that a form asks for, and the scores in its ticket.

    Raises:
        NotScoredError: 400 for a body that is no such form.
    """
    try:
        form = parse_qs(body.decode("latin-1"), max_num_fields=2)
    except ValueError as error:
        reason = "the body must be a form of two fields, `uuid` and `type`"
        raise NotScoredError(400, reason) from error
    return form.get("type", [""])[-1], read_ticket(form.get("uuid", [""])[-1])


def write_ticket(scores: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Scores as text that a trainer hands back; nine digits are all of a float32."""
    short = {
        judge: {name: [float(f"{x:.9g}") for x in row] for name, row in rows.items()}
        for judge, rows in scores.items()
    }
    return base64.urlsafe_b64encode(json.dumps(short, allow_nan=False).encode()).decode()


def read_ticket(ticket: str) -> dict[str, Any]:
    """The scores in a ticket, as it says them.

    Raises:
        NotScoredError: 400 for text that is none.
    """
    try:
        values = read_json(base64.urlsafe_b64decode(ticket), "the ticket")
    except (MalformedError, binascii.Error, ValueError) as error:
        reason = f"`uuid` must be what /api/reward/enqueue answered: {error}"
        raise NotScoredError(400, reason) from error
    if not isinstance(values, dict):
        raise NotScoredError(400, "`uuid` must be what /api/reward/enqueue answered")
    return values
