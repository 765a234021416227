"""Small answers leave at once."""

import socket
import threading
import time

import uvicorn

from gtsvj_reward.serving.server import listening_socket


def test_answers_do_not_wait_for_the_client_to_acknowledge_their_headers():
    """With Nagle's algorithm the body of a small answer leaves 40 ms after its headers."""
    seen = {}
    done = threading.Event()

    async def app(scope, receive, send):
        transport = next(iter(server.server_state.connections)).transport
        taken = transport.get_extra_info("socket")
        seen["nodelay"] = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        done.set()

    with listening_socket("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, http="h11", ws="none", loop="asyncio", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + 120
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert done.wait(120)
        server.should_exit = True
        thread.join(120)
    assert seen["nodelay"]
