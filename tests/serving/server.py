"""A server on a free port of this machine, in a thread of the test, and raw connections to it."""

import socket
import threading
from contextlib import contextmanager

import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.serving import ScoreClient
from gtsvj_reward.serving.app import create_app
from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    PATH,
    VERSION,
    VERSION_HEADER,
    ScoreRequest,
    write_request,
)
from gtsvj_reward.serving.server import DrainingServer, configuration, listening_socket
from tests.tiny import clips, tiny_judge, tiny_space


def reward_of(judge=None, **options):
    return GTSVJReward(judge or tiny_judge(), **options)


@contextmanager
def serving(reward=None, *, token=None, routers=(), judges=None, app=None, **limits):
    """A running server; gives its app and port, and stops it as SIGTERM would."""
    app = app or create_app(
        reward or reward_of(), limits=Limits(**limits), token=token, routers=routers, judges=judges
    )
    started = threading.Event()
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = DrainingServer(configuration(app), app.state.service, started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(120)
            yield app, port
        finally:
            server.handle_exit(15, None)
            thread.join(120)
            assert not thread.is_alive(), "the server does not end"


def varied(count, *shape):
    """Clips of different spread, so that their scores differ."""
    return clips(count, *shape) * torch.linspace(0.4, 2.5, count).view(-1, 1, 1, 1, 1)


def assert_same_scores(found, expected, std=None):
    """Equal to 1e-4 of the scores' standard deviation: batches round by their shape."""
    spread = expected.std().item() if std is None else std
    assert spread > 0.01, "scores are all alike: the test proves nothing"
    torch.testing.assert_close(found, expected, atol=1e-4 * spread, rtol=0)


def client_of(port, **options):
    return ScoreClient(f"http://127.0.0.1:{port}", **{"space": tiny_space(), **options})


def body_of(latents=None, **changes):
    """A version 2 body of tiny latents."""
    fields = {"space_id": "tiny", "space": tiny_space(), "fps": 8.0, **changes}
    return write_request(ScoreRequest(latents=clips() if latents is None else latents, **fields))


HEADERS = {"content-type": CONTENT_TYPE, VERSION_HEADER: VERSION}


def post(port, body, headers=HEADERS, path=PATH):
    """One request without retries; gives status and JSON."""
    import httpx

    response = httpx.post(
        f"http://127.0.0.1:{port}{path}",
        content=body,
        headers=headers,
        trust_env=False,
        timeout=120,
    )
    return response.status_code, response.json()


def head_of(length, *, path=PATH, extra=""):
    """The head of a raw request."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {CONTENT_TYPE}\r\n"
        f"{VERSION_HEADER}: {VERSION}\r\ncontent-length: {length}\r\n{extra}\r\n"
    ).encode()


@contextmanager
def raw(port, timeout=120):
    """A bare connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        yield connection


def answer_to(connection):
    """All that a connection still says, until the server closes it."""
    received = b""
    while chunk := connection.recv(1 << 16):
        received += chunk
    return received


def status_of(connection):
    """The status of the next answer on a raw connection; None if it was closed without one."""
    try:
        line = connection.makefile("rb").readline()
    except ConnectionError:
        return None
    return int(line.split()[1]) if line else None
