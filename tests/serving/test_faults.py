"""Clients that misbehave, and a server that ends, while others are being served."""

import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import torch

from tests.serving.command import command, saved_judge
from tests.serving.server import (
    HEADERS,
    assert_same_scores,
    body_of,
    client_of,
    head_of,
    post,
    raw,
    reward_of,
    serving,
    status_of,
    varied,
)
from tests.tiny import clips

GOOD = body_of(clips(1))


def cut_short(port):
    """Announces a body and leaves in the middle of it."""
    with raw(port) as connection:
        connection.sendall(head_of(len(GOOD)) + GOOD[: len(GOOD) // 2])


def half_closed(port):
    """Likewise, but would still listen."""
    with raw(port) as connection:
        connection.sendall(head_of(len(GOOD)) + GOOD[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert status_of(connection) in (400, 408, None)


def reset(port):
    """Sends a whole request, and resets the connection before the answer."""
    with raw(port) as connection:
        connection.sendall(head_of(len(GOOD)) + GOOD)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def huge_header(port):
    """More header than anybody needs."""
    with raw(port) as connection:
        connection.sendall(head_of(len(GOOD), extra=f"x-padding: {'x' * 70_000}\r\n"))
        assert status_of(connection) in (400, 431, None)  # None: reset while still sending


def many_headers(port):
    """Short ones, without end."""
    with raw(port) as connection:
        try:
            connection.sendall(head_of(len(GOOD), extra="x-padding: x\r\n" * 10_000))
        except ConnectionError:
            return
        assert status_of(connection) in (400, 431, None)


def no_http(port):
    """Something else altogether."""
    with raw(port) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        assert status_of(connection) == 400


def bad_length(port):
    """A length that is none."""
    with raw(port) as connection:
        connection.sendall(head_of("-5"))
        assert status_of(connection) == 400


def slow_body(port):
    """A byte now and then."""
    with raw(port) as connection:
        connection.sendall(head_of(len(GOOD)))
        for at in range(20):
            try:
                connection.sendall(GOOD[at : at + 1])
            except ConnectionError:
                break
            time.sleep(0.1)
        assert status_of(connection) == 408


def slow_head(port):
    """Not even a head."""
    with raw(port) as connection:
        for _ in range(20):
            try:
                connection.sendall(b"P")
            except ConnectionError:
                return
            time.sleep(0.1)
        assert status_of(connection) is None


def wrong_type(port):
    """float64."""
    assert post(port, GOOD.replace(b'"F32"', b'"F64"'))[0] in (400, 408)


def truncated(port):
    """Whole for HTTP, cut short for safetensors; 408 on a machine that takes half a second."""
    assert post(port, GOOD[:-5])[0] in (400, 408)


FAULTS = [cut_short, half_closed, reset, huge_header, many_headers, no_http, bad_length, slow_body,
          slow_head, wrong_type, truncated]  # fmt: skip


def test_good_clients_are_served_while_others_misbehave(reward, offline):
    latents = varied(48)
    expected = offline(latents)
    stop = threading.Event()

    def misbehave(fault):
        times = 0
        while not stop.is_set() or not times:
            fault(port)
            times += 1
            time.sleep(0.05)  # so that the good ones get the processor now and then
        return times

    with serving(reward, body_seconds=0.5, head_seconds=0.5, max_queue=64) as (app, port):
        with ThreadPoolExecutor(8) as good, ThreadPoolExecutor(len(FAULTS)) as bad:
            faults = [bad.submit(misbehave, fault) for fault in FAULTS]
            try:
                with client_of(port, clips_per_request=1) as client:
                    scores = list(good.map(client, latents.split(1)))
            finally:
                stop.set()
            assert all(fault.result() for fault in faults)
        service = app.state.service
        wait_for(lambda: service.pending.total == 0 and not service.batcher.queue)
        statuses = {status for _, status in service.metrics.requests.values}
        assert statuses <= {"200", "400", "408", "431", "499"}
        assert {"200", "400", "408"} <= statuses
    assert_same_scores(torch.cat(scores), expected)


def wait_for(condition, seconds=60.0):
    """Until it holds; fails if it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def test_bodies_in_hand_are_bounded_together(reward):
    """While one slow client has announced 0.7 of what may be in hand, another 0.7 must wait."""
    limits = {"max_body_mib": 0.06, "max_pending_mib": 0.06, "body_seconds": 5.0}
    body = body_of(varied(6))
    assert 0.6 < len(body) / (0.06 * 2**20) < 0.9
    with serving(reward, **limits) as (app, port), raw(port) as slow:
        slow.sendall(head_of(len(body)))
        wait_for(lambda: app.state.service.pending.total == len(body))
        response = httpx.post(
            f"http://127.0.0.1:{port}/v1/score", content=body, headers=HEADERS, trust_env=False
        )
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        with client_of(port) as patient:  # comes back until there is room
            assert len(patient(varied(6))) == 6
        assert status_of(slow) == 408


@contextmanager
def held():
    """A reward whose judge waits; two events: it has begun, it may go on."""
    busy, go = threading.Event(), threading.Event()

    def hold(*_):
        busy.set()
        assert go.wait(120)

    slow = reward_of()
    slow.judge.backbone.model.register_forward_pre_hook(hold)
    try:
        yield slow, busy, go
    finally:
        go.set()


def test_a_full_queue_says_when_to_come_back(offline):
    """One clip is being scored, two wait, and no more may."""
    latents = varied(4)
    limits = {"max_queue": 2, "max_clips": 2, "max_batch_size": 1, "max_wait_ms": 0}
    with (
        held() as (slow, busy, go),
        serving(slow, **limits) as (app, port),
        client_of(port) as patient,
        ThreadPoolExecutor(4) as pool,
    ):
        service = app.state.service
        first = pool.submit(post, port, body_of(latents[:1]))
        assert busy.wait(120)
        later = [pool.submit(post, port, body_of(clip)) for clip in latents[1:3].split(1)]
        wait_for(lambda: service.waiting_clips() == 2)
        status, answer = post(port, body_of(latents[3:]))
        assert status == 429
        assert "2 clips are waiting, at most 2 may" in answer["detail"]
        late = pool.submit(patient, latents[3:])
        wait_for(lambda: service.metrics.requests.values[("/v1/score", "429")] >= 2)
        go.set()
        scores = [one.result()[1]["scores"][0] for one in (first, *later)]
        scores.append(late.result().item())
    assert_same_scores(torch.tensor(scores), offline(latents))


def test_clips_of_a_client_that_left_are_not_scored(offline):
    """Three wait while the judge is busy; the second closes its connection, and asks no more."""
    latents = varied(4)
    with (
        held() as (slow, busy, go),
        serving(slow, max_batch_size=1, max_wait_ms=0) as (app, port),
        ThreadPoolExecutor(3) as pool,
    ):
        service = app.state.service
        first = pool.submit(post, port, body_of(latents[:1]))
        assert busy.wait(120)
        later = [pool.submit(post, port, body_of(latents[2:3]))]
        with raw(port) as leaving:
            leaving.sendall(head_of(len(GOOD)) + GOOD)
            wait_for(lambda: service.waiting_clips() == 2)
        wait_for(lambda: service.waiting_clips() == 1)
        later.append(pool.submit(post, port, body_of(latents[3:])))
        wait_for(lambda: service.waiting_clips() == 2)
        go.set()
        scores = [one.result()[1]["scores"][0] for one in (first, *later)]
        assert service.metrics.batch_clips.total == 3
        assert service.metrics.dropped.values == {(): 1}
        assert service.metrics.requests.values[("/v1/score", "499")] == 1
        wait_for(lambda: service.pending.total == 0)
    assert_same_scores(torch.tensor(scores), offline(latents[[0, 2, 3]]))


def test_a_batch_that_does_not_fit_into_memory_is_halved(offline):
    """Any more than two clips ask torch for 2^50 bytes, which no machine has."""
    small = reward_of()
    sizes = []

    def allocate(_, arguments, named):
        sizes.append(len(named["hidden_states"]))
        if sizes[-1] > 2:
            torch.empty(2**50, dtype=torch.uint8)

    small.judge.backbone.model.register_forward_pre_hook(allocate, with_kwargs=True)
    latents = varied(7)
    with serving(small) as (_, port):
        status, answer = post(port, body_of(latents))
    assert status == 200
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    assert_same_scores(torch.tensor(answer["scores"]), offline(latents))


def test_one_clip_that_does_not_fit_into_memory_may_come_back():
    full = reward_of()
    full.judge.backbone.model.register_forward_pre_hook(
        lambda *_: torch.empty(2**50, dtype=torch.uint8) and None
    )
    with serving(full) as (_, port):
        status, answer = post(port, body_of(clips(1)))
    assert (status, answer["detail"]) == (503, "the judge ran out of memory")


def test_sigterm_finishes_what_was_taken(tmp_path):
    """Jobs in the queue and a body that is half sent are answered; then there is no server."""
    latents = varied(6)
    flags = ["--port", 0, "--device", "cpu", "--max_wait_ms", 60_000, "--max_batch_size", 64,
             "--body_seconds", 600]  # fmt: skip
    judge = saved_judge(tmp_path)
    with (
        command(judge, *flags) as (process, port),
        ThreadPoolExecutor(6) as pool,
        raw(port) as half,
    ):
        body = body_of(clips(1, 4))
        half.sendall(head_of(len(body)) + body[:-10])
        with client_of(port, clips_per_request=1, retry_for=0) as client:
            waiting = [pool.submit(client, clip) for clip in latents.split(1)]
            metrics = f"http://127.0.0.1:{port}/metrics"
            text = "gtsvj_waiting_clips 6"
            wait_for(lambda: text in httpx.get(metrics, trust_env=False).text, 120)
            assert not any(one.done() for one in waiting), "the test proves nothing"
            process.send_signal(signal.SIGTERM)
            # Sooner than --max_wait_ms: nobody waits for company any more.
            scores = torch.cat([one.result(50) for one in waiting])
        half.sendall(body[-10:])
        assert status_of(half) == 200
        assert process.wait(120) == -signal.SIGTERM
        with pytest.raises(ConnectionError):
            raw(port).__enter__()
    assert_same_scores(scores, reward_of()(latents))


def test_a_stopping_server_is_not_healthy(reward):
    with serving(reward) as (app, port):
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        app.state.service.draining = True
        answer = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
        assert answer.status_code == 503
        assert answer.json()["status"] == "draining"
        assert answer.headers["retry-after"]
