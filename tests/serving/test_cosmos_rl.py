"""cosmos-rl's reward service, for latents.

The stand-in sends what `RemoteRewardCalculator` sends at the commit that was read, and reads the
answers as it does.
"""

import asyncio
import io
import json
import random

import httpx
import numpy as np
import pytest
import torch

from gtsvj_reward.serving import cosmos_rl
from gtsvj_reward.serving.app import Service
from gtsvj_reward.serving.bodies import MalformedError
from gtsvj_reward.serving.cosmos_rl import read_jobs, read_latents, read_ticket, write_ticket
from gtsvj_reward.serving.judges import as_judges
from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.refusals import NotScoredError
from tests.serving.server import assert_same_scores, post, reward_of, serving, varied
from tests.tiny import clips, tiny_aspect_judge, tiny_judge

ENQUEUE = "/api/reward/enqueue?latent_space_id=tiny"


def packed(latents, **changes):
    """A line of JSON and the latents in half precision, channels first."""
    data = {
        "prompts": ["a dog"] * len(latents),
        "reward_fn": {"default": 1.0},
        "video_infos": [{"video_fps": 8.0}] * len(latents),
        "media_type": "latent",
        **changes,
    }
    data = {name: value for name, value in data.items() if value is not None}
    return json.dumps(data).encode() + b"\n" + numpy_file(latents.transpose(1, 2).half().numpy())


def numpy_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def enqueued(port, body, path=ENQUEUE, token="-"):
    headers = {"content-type": "application/octet-stream", "authorization": f"Bearer {token}"}
    status, said = post(port, body, headers, path)
    if status != 200:
        raise RuntimeError(f"Enqueue failed with status {status}: {said}")
    assert said.get("replica_id") is None
    return said["uuid"]


def fetched(port, uuid, name="default", score_key="score", token="-"):
    """What the trainer makes of it: a sum of the keys."""
    response = httpx.post(
        f"http://127.0.0.1:{port}/api/reward/pull", data={"uuid": uuid, "type": name},
        headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=10,
    )  # fmt: skip
    if response.status_code != 200:
        raise RuntimeError(f"{response.status_code}: {response.text}")
    scores = response.json()["scores"]
    return sum(torch.tensor(scores[key.strip()]) for key in score_key.split("+"))


@pytest.fixture(scope="module")
def served():
    """Two judges, one of them with aspects and statistics, behind a token."""
    plain, aspects = reward_of(), reward_of(tiny_aspect_judge())
    with serving(aspects, judges={"plain": plain}, token="secret", routers=[cosmos_rl.routes]) as (
        _,
        port,
    ):
        yield aspects, plain, port


def test_latents_get_the_judges_scores(served):
    aspects, plain, port = served
    latents = varied(3)
    expected = aspects.details(latents.half().float(), fps=8.0)
    both = {"default": 2.0, "plain": 0.5, "no such judge": 0.0}
    uuid = enqueued(port, packed(latents, reward_fn=both), token="secret")
    assert_same_scores(fetched(port, uuid, token="secret"), expected.rewards)
    assert_same_scores(fetched(port, uuid, score_key="raw", token="secret"), expected.raw)
    summed = fetched(port, uuid, score_key="aspect:clear + aspect:focus", token="secret")
    assert_same_scores(summed, expected.aspects["clear"] + expected.aspects["focus"])
    raw = plain(latents.half().float(), normalize=False)
    assert_same_scores(fetched(port, uuid, "plain", "raw", token="secret"), raw)
    with pytest.raises(RuntimeError, match=r"400.*has scores of \['default', 'plain'\], not of"):
        fetched(port, uuid, "dance_grpo", token="secret")


REFUSALS = [
    (packed(clips()), "/api/reward/enqueue", r"400.*no latent space: name it in the URL"),
    (packed(clips()), ENQUEUE + "&fps=8", r"400.*no latent space"),
    (
        packed(clips()),
        "/api/reward/enqueue?latent_space_id=wan",
        "422.*judge 'default': .*got latents of 'wan'",
    ),
    (packed(clips(), reward_fn={"dance_grpo": 1.0}), ENQUEUE, "422.*unknown judge 'dance_grpo'"),
    (packed(clips(), reward_fn={"default": 0}), ENQUEUE, "400.*no judge with a positive weight"),
    (packed(clips(), reward_fn=["default"]), ENQUEUE, "400.*`reward_fn` must be an object"),
    (packed(clips(), prompts=["one"]), ENQUEUE, "400.*got 1 prompts for 2 clips"),
    (packed(clips(), prompts=[1, 2]), ENQUEUE, "400.*`prompts` must be a list of texts"),
    (packed(clips(), media_type="video"), ENQUEUE, "400.*`media_type` must be 'latent'"),
    (packed(clips(), video_infos=[{"video_fps": 8}, {}]), ENQUEUE, "400.*one positive number"),
    (packed(clips(), video_infos=[{"video_fps": 8}, {"video_fps": 9}]), ENQUEUE, "400.*for all"),
    (packed(clips(), video_infos=[{"video_fps": 8}]), ENQUEUE, "400.*got 1 `video_infos` for 2"),
    (packed(clips(), video_infos=[]), ENQUEUE, "400.*got 0 `video_infos` for 2 clips"),
    (packed(clips(), video_infos=[{"video_fps": 99.0}] * 2), ENQUEUE, "422.*fps"),
    (packed(clips(2, 2)), ENQUEUE, "422.*latent frames 2 outside"),
    (packed(clips() * torch.nan), ENQUEUE, "422.*non-finite"),
    (packed(clips().transpose(1, 2)), ENQUEUE, "422.*expected 4 latent channels"),
    (packed(clips())[:-1], ENQUEUE, "400.*have .* bytes, got"),
    (b"{}", ENQUEUE, "400.*`prompts` must be"),
    (b"[]\n", ENQUEUE, "400.*must be a JSON object"),
    (packed(clips()).replace(b"'<f2'", b"'|O '"), ENQUEUE, "400.*expected a NumPy file"),
]


@pytest.mark.parametrize(("body", "path", "reason"), REFUSALS)
def test_what_cannot_be_scored_is_refused_at_once(served, body, path, reason):
    with pytest.raises(RuntimeError, match=reason):
        enqueued(served[2], body, path, token="secret")


def test_both_routes_ask_for_the_token(served):
    with pytest.raises(RuntimeError, match="401"):
        enqueued(served[2], packed(clips()))
    with pytest.raises(RuntimeError, match="401"):
        fetched(served[2], "x")


def test_a_form_that_is_no_ticket_is_refused_before_it_is_read(served, monkeypatch):
    monkeypatch.setattr(cosmos_rl, "MAX_TICKET_MIB", 1 / 64)
    uuid = enqueued(served[2], packed(clips()), token="secret")
    fetched(served[2], uuid, token="secret")
    with pytest.raises(RuntimeError, match=r"413.*at most 16384"):
        fetched(served[2], "x" * 16384, token="secret")
    with pytest.raises(RuntimeError, match=r"400.*a form of two fields, `uuid` and `type`"):
        fetched(served[2], [uuid] * 2, token="secret")


def test_a_judge_without_statistics_has_no_score_and_one_of_prompts_refuses():
    reader = reward_of(tiny_judge(text_input="prompt"))
    bare = reward_of(tiny_judge(reward_mean=None, reward_std=None))
    with serving(bare, judges={"reader": reader}, routers=[cosmos_rl.routes]) as (app, port):
        uuid = enqueued(port, packed(clips(), video_infos=None))
        with pytest.raises(KeyError, match="score"):
            fetched(port, uuid)
        assert fetched(port, uuid, score_key="raw").shape == (2,)
        with pytest.raises(RuntimeError, match=r"422.*prompt"):
            enqueued(port, packed(clips(), reward_fn={"default": 1.0, "reader": 1.0}))
        assert app.state.service.metrics.clips.values == {(): 2}, "no judge scored those"


def test_the_queue_takes_a_request_for_all_its_judges_or_none():
    """Two clips may wait: those of the second judge are of the same request."""
    limits = {"max_queue": 2, "max_clips": 2}
    judges = {"plain": reward_of()}
    with serving(judges=judges, routers=[cosmos_rl.routes], **limits) as (_, port):
        uuid = enqueued(port, packed(clips(), reward_fn={"default": 1.0, "plain": 1.0}))
        assert fetched(port, uuid, "plain").shape == (2,)


def test_a_judge_that_fails_is_named_and_the_others_stop():
    """The jobs of further judges leave the queue, and no task is left behind."""
    broken = reward_of()
    broken.judge.head.energy.weight.data.fill_(torch.inf)

    async def ask():
        service = Service(
            as_judges(broken, {"b": reward_of(), "c": reward_of()}, {}), Limits(), None
        )
        async with service.running(None):
            jobs = read_jobs(
                service,
                packed(clips(), reward_fn={"default": 1.0, "b": 1.0, "c": 1.0}),
                {"latent_space_id": "tiny"},
            )
            with pytest.raises(
                NotScoredError, match="judge 'default': the score of clip 0 is"
            ) as caught:
                await service.score_all(jobs)
            assert caught.value.status == 422
            assert service.waiting_clips() == 0
            assert asyncio.all_tasks() == {asyncio.current_task(), service.batcher.task}

    asyncio.run(ask())


def test_tickets_are_exact_and_others_are_refused():
    values = torch.tensor([1 / 3, -1e-7, 12345.678]).tolist()
    assert read_ticket(write_ticket({"a": {"raw": values}})) == {
        "a": {"raw": pytest.approx(values, rel=1e-8, abs=0)}
    }
    assert torch.tensor(read_ticket(write_ticket({"a": {"raw": values}}))["a"]["raw"]).equal(
        torch.tensor(values)
    )
    for forged in ("", "x", "ä", "W10=", "bnVsbA==", "TmFO"):
        with pytest.raises(NotScoredError, match="must be what /api/reward/enqueue answered"):
            read_ticket(forged)


def test_any_bytes_are_latents_or_are_refused():
    whole = numpy_file(clips().transpose(1, 2).half().numpy())
    draw = random.Random(0)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.choice([1, 3])):
            changed[draw.randrange(140)] = draw.randrange(256)
        try:
            outcomes.add(read_latents(bytes(changed)).shape[0] == 2)
        except MalformedError:
            outcomes.add("refused")
    assert outcomes >= {True, "refused"}
    huge = whole.replace(b"(2, 4, 5, 8, 12)", b"(2, 4, 5, 8, 99)")
    for wrong in (huge, whole + b"x", whole.replace(b"<f2", b"<f8")):
        with pytest.raises(MalformedError):
            read_latents(wrong)
