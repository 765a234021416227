"""What the client repeats, what it does not, and that it never makes up a score."""

import json
import logging
import pickle
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward import TextCondition
from gtsvj_reward.reward import RewardEnsemble, WeightedReward
from gtsvj_reward.serving import RefusedError, ScoreClient, ScoreServerError, retries
from gtsvj_reward.serving.replies import ScoreReply, write_reply
from gtsvj_reward.serving.retries import asked_pause
from tests.serving.server import assert_same_scores, client_of, serving, varied
from tests.tiny import clips, tiny_space

SCORED = write_reply(
    ScoreReply(
        scores=(0.5, 1.5),
        raw_scores=(0.25, 0.75),
        aspects={},
        trajectory=((0.25,), (0.75,)),
        untrained_geometry=(None, None),
    ),
    "2",
)


@contextmanager
def scripted(*answers):
    """A server that gives these answers one after the other, and the requests that it got.

    An answer is (status, headers, body); None closes the connection without one.
    """
    requests, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            requests.append(dict(self.headers))
            answer = left.pop(0)
            if answer is None:
                self.close_connection = True
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, requests
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Waits that were asked for, instead of waiting."""
    waited = []
    clock = SimpleNamespace(sleep=waited.append, monotonic=time.monotonic)
    monkeypatch.setattr(retries, "time", clock)
    return waited


def refusal(status, headers=None):
    return status, headers or {}, json.dumps({"detail": f"because of {status}"}).encode()


def failure_of(port, **options):
    """What a client raises."""
    expected = pytest.raises((RefusedError, ScoreServerError))
    with client_of(port, **options) as client, expected as raised:
        client(clips())
    return raised.value


@pytest.mark.parametrize("status", [404, 408, 429, 502, 503, 504])
def test_passing_troubles_are_waited_for(status, pauses, caplog):
    caplog.set_level(logging.WARNING)
    answers = [refusal(status), refusal(status), (200, {}, SCORED)]
    with scripted(*answers) as (port, requests), client_of(port) as client:
        scores = client(clips())
    assert scores.tolist() == [0.5, 1.5]
    assert len(requests) == 3
    assert len(pauses) == 2
    assert f"because of {status}" in caplog.text


def test_lost_connections_are_waited_for(pauses):
    with scripted(None, None, (200, {}, SCORED)) as (port, requests), client_of(port) as client:
        assert client(clips()).tolist() == [0.5, 1.5]
    assert len(requests) == 3
    assert len(pauses) == 2


def test_the_server_says_how_long_to_wait(pauses):
    busy = refusal(429, {"retry-after": "7"})
    with scripted(busy, (200, {}, SCORED)) as (port, _), client_of(port) as client:
        client(clips())
    assert pauses == [7.0]


def test_pauses_grow():
    assert asked_pause(None) == asked_pause("soon") == asked_pause("-3") == 0
    assert asked_pause(" 12 ") == 12


def test_pauses_double(pauses):
    answers = [refusal(503)] * 5
    with scripted(*answers, (200, {}, SCORED)) as (port, _), client_of(port) as client:
        client(clips())
    for index, pause in enumerate(pauses):
        assert 0.125 * 2**index <= pause <= 0.25 * 2**index


@pytest.mark.parametrize("status", [400, 401, 413, 415, 422, 302])
def test_refusals_are_final(status, pauses):
    with scripted(refusal(status)) as (port, requests):
        failure = failure_of(port)
    assert isinstance(failure, RefusedError)
    assert f"because of {status}" in str(failure)
    assert len(requests) == 1
    assert not pauses


def test_a_path_that_is_wrong_is_said_at_once(port, pauses):
    """The address of the route instead of the server's."""
    with (
        ScoreClient(f"http://127.0.0.1:{port}/v1/score", space=tiny_space()) as client,
        pytest.raises(RefusedError, match=r"is its path '/v1/score' right\?.* HTTP 404"),
    ):
        client(clips())
    assert not pauses


def test_a_failing_server_is_final():
    with scripted(refusal(500)) as (port, requests):
        failure = failure_of(port)
    assert isinstance(failure, ScoreServerError)
    assert "HTTP 500" in str(failure)
    assert len(requests) == 1


@pytest.mark.parametrize("body", [b"Internal Server Error", b"[]", b""])
def test_a_proxy_whose_replica_died_is_asked_again(body, pauses):
    """Its 500 has no reason in it, unlike that of a judge which failed."""
    answers = [(500, {}, body), (200, {}, SCORED)]
    with scripted(*answers) as (port, _), client_of(port) as client:
        assert client(clips()).tolist() == [0.5, 1.5]
    assert len(pauses) == 1


def test_time_runs_out():
    with scripted(refusal(503)) as (port, _):
        failure = failure_of(port, retry_for=0)
    assert isinstance(failure, ScoreServerError)
    assert "after 1 attempts in 0 s" in str(failure)
    assert "because of 503" in str(failure)


def test_nobody_there():
    with scripted() as (port, _):
        pass
    assert "ConnectError" in str(failure_of(port, retry_for=0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a proxy's page</html>",
        SCORED.replace(b'"2"', b'"1"'),
        SCORED.replace(b"[0.5, 1.5]", b"[0.5]"),
        SCORED.replace(b"[0.5, 1.5]", b"[0.5, NaN]"),
        SCORED.replace(b"[0.5, 1.5]", b"[0.5, null]"),
    ],
)
def test_answers_without_a_score_for_each_clip_raise(body):
    with scripted((200, {}, body)) as (port, _):
        failure = failure_of(port)
    assert isinstance(failure, ScoreServerError)
    assert "no usable answer" in str(failure)


def test_the_token_is_sent_and_not_shown():
    scored = scripted((200, {}, SCORED))
    with scored as (port, requests), client_of(port, token="s3cret") as client:
        client(clips())
        assert "s3cret" not in repr(client)
    assert requests[0]["authorization"] == "Bearer s3cret"


def test_latents_that_record_gradients_are_refused():
    latents = clips().requires_grad_()
    with scripted((200, {}, SCORED)) as (port, _), client_of(port) as client:
        with pytest.raises(ValueError, match="a score from a server has no gradient"):
            client(latents)
        with torch.no_grad():
            assert len(client(latents)) == 2


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="http:// or https://"):
        ScoreClient("localhost:8000")
    with pytest.raises(ValueError, match="timeout > 0"):
        client_of(0, timeout=0)
    with client_of(1) as client, pytest.raises(ValueError, match="the batch is empty"):
        client(clips()[:0])
    text = TextCondition(torch.zeros(3, 6, 8))
    with client_of(1) as client, pytest.raises(ValueError, match="3 text embeddings for 2 clips"):
        client(clips(), text=text)


def test_a_client_can_be_pickled_and_shared(port, offline):
    client = pickle.loads(pickle.dumps(client_of(port)))
    assert_same_scores(client(varied(4)), offline(varied(4)))
    client.close()


def test_a_client_is_a_reward(reward, port):
    """Combinations take it in the place of a judge."""
    latents = varied(3)
    with client_of(port) as client:
        both = WeightedReward([("server", client, 1.0), ("here", reward, 2.0)])
        with torch.no_grad():
            assert_same_scores(both(latents), 3 * reward(latents))
        several = RewardEnsemble({"server": client, "here": reward})
        with torch.no_grad():
            assert several.details(latents).uncertainty.max() < 1e-5


def test_health(port):
    with client_of(port) as client:
        found = client.health()
    assert found["status"] == "ok"
    assert found["latent_space"]["id"] == "tiny"
    assert found["protocol_versions"] == ["1", "2"]


def test_health_of_a_server_that_ends():
    with serving() as (app, port), client_of(port) as client:
        app.state.service.draining = True
        with pytest.raises(ScoreServerError, match="HTTP 503"):
            client.health()
