"""What `/metrics` says, in the format that Prometheus reads."""

import re

import httpx
import pytest

from gtsvj_reward.serving.metrics import Counter, Histogram
from tests.serving.server import body_of, post, serving
from tests.tiny import clips

LINE = re.compile(r'[a-z_]+(\{([a-z]+="[^"\\\n]*",?)+\})? -?[0-9.e+-]+')


def test_a_histogram_accumulates():
    seen = Histogram("seconds", "How long.", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        seen.observe(value)
    assert list(seen.lines()) == [
        "# HELP seconds How long.",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 2',
        'seconds_bucket{le="1"} 3',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 7.65",
        "seconds_count 4",
    ]


def test_counters_keep_every_unit():
    counter = Counter("things_total", "Things.", ("kind",))
    counter.add("a", amount=123_456_789)
    counter.add("a")
    assert list(counter.lines())[2] == 'things_total{kind="a"} 123456790'


@pytest.mark.parametrize("name", ["gtsvj_waiting_clips", "gtsvj_pending_bytes"])
def test_what_happened_is_counted(reward, name):
    with serving(reward) as (_, port):
        for _ in range(3):
            assert post(port, body_of(clips(2)))[0] == 200
        assert post(port, b"")[0] == 400
        for path in ("/nothing", "/nothing/at/all", "/v1/score/"):
            assert post(port, b"", path=path)[0] == 404
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert all(line.startswith("# ") or LINE.fullmatch(line) for line in lines), lines
    assert 'gtsvj_requests_total{path="/v1/score",status="200"} 3' in lines
    assert 'gtsvj_requests_total{path="/v1/score",status="400"} 1' in lines
    assert sum('path="other"' in line for line in lines) <= 2
    assert "nothing" not in answer.text
    assert "gtsvj_clips_total 6" in lines
    assert "gtsvj_request_seconds_count 3" in lines
    assert "gtsvj_batch_clips_sum 6" in lines
    assert f"{name} 0" in lines
