"""The Ray Serve engine, against a real Ray on this machine."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gtsvj_reward.cli import main
from gtsvj_reward.serving import RefusedError
from tests.serving.command import command, saved_judge
from tests.serving.server import assert_same_scores, client_of, reward_of, varied
from tests.tiny import clips, tiny_space

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def test_without_ray_the_error_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert main(["serve", str(saved_judge(tmp_path)), "--engine", "ray", "--device", "cpu"]) == 1
    assert "pip install 'gtsvj-reward[ray,serve]'" in capsys.readouterr().err


@pytest.mark.slow
def test_replicas_score_as_one_process_does_and_finish_what_they_took(tmp_path):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--engine", "ray", "--replicas", 2, "--port", port, "--device", "cpu"]
    judge = saved_judge(tmp_path)
    ready = r"(?:serving .* on http://127\.0\.0\.1:)(\d+)"
    with command(judge, *flags, environment=QUIET, announced=ready) as (process, found):
        assert found == port
        latents = varied(24)
        with client_of(port, clips_per_request=1) as client, ThreadPoolExecutor(8) as pool:
            assert client.health()["status"] == "ok"
            scores = torch.cat(list(pool.map(client, latents.split(1))))
            with pytest.raises(RefusedError, match="tiny"):
                client(clips(), space=tiny_space(id="another"))
            client.retry_for = 0.0
            late = [pool.submit(client, clip) for clip in latents.split(1) * 20]
            while not any(one.done() for one in late):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            failures = [one.exception() for one in late]
        process.wait(120)
    assert_same_scores(scores, reward_of()(latents))
    assert None in failures
    answered = [one.result() for one in late if one.exception() is None]
    assert len(answered) < len(late), "the server did not stop in between"
    # Stopped before it was taken, never after: 404 is Ray's proxy without a deployment.
    stopped = ("HTTP 404", "Connection refused")
    assert all(any(word in str(failure) for word in stopped) for failure in failures if failure)
