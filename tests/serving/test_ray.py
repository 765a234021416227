"""The Ray Serve engine, against a real Ray on this machine."""

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gtsvj_reward.cli import main
from gtsvj_reward.serving import RefusedError
from tests.conftest import clips, tiny_space
from tests.serving.command import command, saved_judge
from tests.serving.conftest import assert_same_scores, client_of, reward_of, varied

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
            waiting = [pool.submit(client, clip) for clip in latents.split(1)]
            while not any(one.done() for one in waiting):
                pass
            process.send_signal(signal.SIGTERM)
            late = [one.exception() or one.result() for one in waiting]
        process.wait(120)
    assert_same_scores(scores, reward_of()(latents))
    assert any(isinstance(one, torch.Tensor) for one in late)
