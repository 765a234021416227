"""Connections beyond those that a server can hold."""

import json
import logging
import re
import resource
import signal
import time

import httpx

from gtsvj_reward.serving import connections
from gtsvj_reward.serving.connections import OncePerSecond, affordable
from tests.serving.command import command, saved_judge
from tests.serving.server import (
    answer_to,
    assert_same_scores,
    client_of,
    raw,
    reward_of,
    serving,
    varied,
)


def test_connections_beyond_the_limit_get_503(reward, offline):
    """Two that say nothing take both places, until their time is over."""
    with serving(reward, max_connections=2, head_seconds=1.0) as (app, port):
        with raw(port), raw(port), raw(port) as third:
            head, _, body = answer_to(third).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1" in head
        assert "too many connections" in json.loads(body)["detail"]
        assert app.state.service.metrics.refused.values == {(): 1}
        with client_of(port) as patient:
            assert_same_scores(patient(varied(4)), offline(varied(4)))


def test_out_of_descriptors_the_server_goes_on_says_so_rarely_and_ends_on_ctrl_c(tmp_path):
    """60 files may be open: three times as many connections neither end it nor fill its log."""
    judge, expected = saved_judge(tmp_path), reward_of()(varied(4))
    log = tmp_path / "log"
    flags = ["--port", 0, "--device", "cpu", "--max_batch_size", 3, "--head_seconds", 1]
    started = {"files": 60, "log": log, "environment": {"GTSVJ_SERVE_TOKEN": "of-the-environment"}}
    with command(judge, *flags, **started) as (process, port):
        found = httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).json()
        assert found["limits"]["max_batch_size"] == 3
        assert str(tmp_path) not in str(found)
        with client_of(port, token="of-the-environment") as client:
            assert_same_scores(client(varied(4)), expected)
        began = time.monotonic()
        held = [raw(port) for _ in range(180)]
        for one in held:
            one.__enter__()
        with client_of(port, token="of-the-environment", retry_for=60) as patient:
            assert_same_scores(patient(varied(4)), expected)
        seconds = time.monotonic() - began
        for one in held:
            one.__exit__(None, None, None)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130  # as a shell says it
    said = log.read_text()
    assert re.search(r"at most 15 connections at once instead of 512", said)
    assert said.count("the last was rejected") + said.count("can be accepted") <= 2 * seconds + 4
    assert len(said) < 20_000


def test_fewer_connections_than_files(monkeypatch):
    """A quarter of few files, and all but 384 of many."""
    for files, expected in ((60, 15), (512, 128), (768, 384), (100_000, 500)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert affordable(500) == expected


def test_a_warning_is_logged_once_a_second(monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(connections.time, "monotonic", lambda: now)
    quiet = OncePerSecond()
    logged = []
    for now in (100.0, 100.1, 100.9, 101.0, 101.5, 102.5):  # noqa: B007
        record = logging.makeLogRecord({"msg": "full %d", "levelno": logging.WARNING})
        if quiet.filter(record):
            logged.append(record.msg)
    assert logged == [
        "full %d",
        "full %d (2 more since the last time)",
        "full %d (1 more since the last time)",
    ]
