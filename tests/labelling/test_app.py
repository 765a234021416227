"""The page over HTTP: who may see it, what it may load, and that only listed videos leave."""

import pytest
from fastapi.testclient import TestClient

from gtsvj_reward.labelling.app import FILES, create_app
from gtsvj_reward.labelling.tokens import token_of
from tests.labelling.tiny import session

TOKEN = "secret-of-this-page"


@pytest.fixture
def made(tmp_path):
    return session(tmp_path, groups=1, each=4)


@pytest.fixture
def client(made):
    with TestClient(create_app(made, token=TOKEN), base_url="http://127.0.0.1") as opened:
        assert opened.get(f"/?token={TOKEN}").status_code == 200
        yield opened


def post(client, action, **body):
    return client.post(f"/api/{action}", json={"rater": "ann", **body})


def test_everything_needs_the_token(made):
    with TestClient(create_app(made, token=TOKEN), base_url="http://127.0.0.1") as client:
        for path in ("/", "/?token=wrong", "/static/main.js", "/api/settings", "/video/0"):
            assert client.get(path).status_code == 401, path
        assert client.post("/api/task", json={"rater": "ann"}).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/settings", headers=bearer).status_code == 200
        response = client.get(f"/?token={TOKEN}")
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/").status_code == 200


def test_without_a_token_only_names_of_this_machine_are_answered(made):
    app = create_app(made, token=None)
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        assert client.get("/api/settings").status_code == 200
        assert client.get("/api/settings", headers={"host": "evil.example"}).status_code == 403


def test_every_answer_forbids_foreign_code(client):
    for path in ("/", "/static/main.js", "/api/settings", "/nothing"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


def test_the_files_of_the_page_are_there_and_load_nothing_from_elsewhere(client):
    for name in FILES:
        text = client.get(f"/static/{name}").text
        assert text
        outside = text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside
        assert "https://" not in outside
        assert "innerHTML" not in text
    assert client.get("/static/..%2fapp.py").status_code == 404


def test_videos_come_in_ranges_and_from_the_folder_alone(made, client, tmp_path):
    made.clips[0].path.write_bytes(bytes(range(100)))
    part = client.get("/video/0", headers={"range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == bytes(range(10, 20))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert client.get("/video/0").headers["accept-ranges"] == "bytes"
    assert client.get("/video/4").status_code == 404
    assert client.get("/video/-1").status_code == 404
    (tmp_path / "secret").write_bytes(b"secret")
    made.clips[1].path.unlink()
    made.clips[1].path.symlink_to(tmp_path / "secret")
    response = client.get("/video/1")
    assert response.status_code == 404
    assert b"secret" not in response.content


def test_compare_undo_skip(client):
    task = post(client, "task").json()["task"]
    assert len(task["clips"]) == 2
    assert "predicted" not in task
    after = post(client, "answer", ticket=task["ticket"], label=1, seconds=1.23456).json()
    assert (after["mine"], after["all"], after["can_undo"]) == (1, 1, True)
    assert post(client, "undo").json()["task"]["ticket"] == task["ticket"]
    broken = task["clips"][0]["name"]
    after = post(client, "skip", ticket=task["ticket"], reason="broken", broken=[broken]).json()
    assert after["skipped"] == 1
    progress = client.get("/api/progress").json()
    assert progress["skips"] == {"broken": 1}
    assert progress["judge"] is None
    listed = client.get("/api/clips?search=2.MP4").json()
    assert [row["name"] for row in listed["rows"]] == ["prompt0/2.mp4"]


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("answer", {"ticket": "none", "label": 1}, 409),
        ("answer", {}, 422),
        ("task", {"rater": " "}, 422),
        ("task", {"rater": "x" * 61}, 422),
        ("task", {"rater": "\x00"}, 422),
        ("checkpoint", {}, 409),
        ("sell", {}, 404),
    ],
)
def test_requests_that_are_refused(client, action, body, status):
    response = post(client, action, **body)
    assert response.status_code == status
    assert response.json()["detail"]


def test_bodies_are_small_json(client):
    assert client.post("/api/task", content=b"{}").status_code == 415
    json = {"content-type": "application/json"}
    assert client.post("/api/task", content=b"{", headers=json).status_code == 422
    assert client.post("/api/task", content=b"[]", headers=json).status_code == 422
    large = b'{"rater": "' + b"x" * 100_000 + b'"}'
    assert client.post("/api/task", content=large, headers=json).status_code == 413


def test_a_folder_keeps_its_token(tmp_path, monkeypatch):
    monkeypatch.delenv("GTSVJ_SERVE_TOKEN", raising=False)
    made = token_of(tmp_path, None)
    assert len(made) > 20
    assert token_of(tmp_path, None) == made
    assert (tmp_path / ".token").stat().st_mode & 0o077 == 0
    (tmp_path / "mine").write_text("of-my-own\n")
    assert token_of(tmp_path, tmp_path / "mine") == "of-my-own"
