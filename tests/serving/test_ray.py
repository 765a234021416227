"""The Ray Serve engine, against a real Ray on this machine."""

import os
import pickle
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch

from gtsvj_reward.serving import RefusedError
from tests.serving.command import command, saved_judge
from tests.serving.server import assert_same_scores, client_of, reward_of, varied
from tests.tiny import clips, tiny_space

RAY_TOKEN = "0123456789abcdef" * 2
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
         "RAY_AUTH_TOKEN": RAY_TOKEN}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two replicas; gives process and port."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--engine", "ray", "--replicas", 2, "--port", port, "--device", "cpu"]
    judge = saved_judge(tmp_path_factory.mktemp("ray"))
    ready = r"(?:serving .* on http://127\.0\.0\.1:)(\d+)"
    with command(judge, *flags, environment=QUIET, announced=ready) as (process, found):
        assert found == port
        yield process, port


def ports_of(process, name):
    """Process id, address and port of all sockets that processes of a name listen on."""
    return [
        (child.pid, one.laddr.ip, one.laddr.port)
        for child in psutil.Process(process.pid).children(recursive=True)
        if name in " ".join(child.cmdline())
        for one in child.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]


@pytest.mark.slow
def test_replicas_score_as_one_process_does(served):
    _, port = served
    latents = varied(24)
    with client_of(port, clips_per_request=1) as client, ThreadPoolExecutor(8) as pool:
        assert client.health()["status"] == "ok"
        scores = torch.cat(list(pool.map(client, latents.split(1))))
        with pytest.raises(RefusedError, match="tiny"):
            client(clips(), space=tiny_space(id="another"))
    assert_same_scores(scores, reward_of()(latents))


@pytest.mark.slow
def test_ray_listens_on_this_machine_alone(served):
    """But for the replicas' own ports, which Ray opens everywhere and which need the token."""
    process, _ = served
    found = ports_of(process, "")
    assert len(found) > 8, "the test proves nothing"
    replicas = {pid for pid, _, _ in ports_of(process, "ray::ServeReplica")}
    everywhere = {pid for pid, address, _ in found if address in ("0.0.0.0", "::")}
    assert everywhere <= replicas


class Intruder:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.slow
def test_nobody_without_the_token_runs_code_in_a_replica(served, tmp_path):
    grpc = pytest.importorskip("grpc")
    from ray.serve.generated.serve_pb2 import ASGIRequest

    process, _ = served
    payload = pickle.dumps(Intruder(tmp_path / "intruder"))
    request = ASGIRequest(pickled_request_metadata=payload, request_args=payload)
    statuses = []
    for _, _, port in ports_of(process, "ray::ServeReplica"):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(
                "/ray.serve.ASGIService/HandleRequest",
                request_serializer=ASGIRequest.SerializeToString,
            )
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=30)
            statuses.append(refused.value.code())
    assert not (tmp_path / "intruder").exists()
    assert statuses.count(grpc.StatusCode.UNAUTHENTICATED) >= 2


@pytest.mark.slow
def test_nobody_without_the_token_asks_ray_itself(served):
    grpc = pytest.importorskip("grpc")
    process, _ = served
    ((_, _, port),) = ports_of(process, "gcs_server")[:1]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        nodes = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        with pytest.raises(grpc.RpcError) as refused:
            nodes(b"", timeout=30)
        assert nodes(b"", timeout=30, metadata=[("authorization", f"Bearer {RAY_TOKEN}")])
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.slow
def test_a_replica_that_is_killed_costs_no_answer(served):
    """Every request is answered once, with its own score; Ray's proxy says 500 for some."""
    process, port = served
    latents = varied(24)
    with client_of(port, clips_per_request=1) as client, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(client, clip) for clip in latents.split(1) * 20]
        while sum(one.done() for one in asked) < 30:
            time.sleep(0.01)
        victim = next(pid for pid, _, _ in ports_of(process, "ray::ServeReplica"))
        os.kill(victim, signal.SIGKILL)
        scores = torch.cat([one.result() for one in asked])
    assert_same_scores(scores, reward_of()(latents).repeat(20))


@pytest.mark.slow
def test_a_server_that_ends_finishes_what_it_took(served):
    """The last one, since it ends the server."""
    process, port = served
    latents = varied(24)
    with (
        client_of(port, clips_per_request=1, retry_for=0.0) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        late = [pool.submit(client, clip) for clip in latents.split(1) * 20]
        while not any(one.done() for one in late):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        failures = [one.exception() for one in late]
    process.wait(120)
    assert None in failures
    assert any(failures), "the server did not stop in between"
    # Stopped before it was taken, never after: 404 is Ray's proxy without a deployment.
    stopped = ("HTTP 404", "Connection refused")
    assert all(any(word in str(failure) for word in stopped) for failure in failures if failure)
