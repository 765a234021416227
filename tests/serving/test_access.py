"""Who may use the server."""

import base64
import hmac
import logging

import httpx
import pytest

from gtsvj_reward.cli import main
from gtsvj_reward.serving import RefusedError, access, server
from gtsvj_reward.serving.access import check_address, is_authorised, is_loopback, read_token
from gtsvj_reward.serving.app import create_app
from tests.serving.command import saved_judge
from tests.serving.server import body_of, client_of, post, reward_of, serving
from tests.tiny import clips

TOKEN = "a-token-of-some-length"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(access.TOKEN_VARIABLE, raising=False)


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(f"any:{TOKEN}")])
def test_the_token_opens(header):
    assert is_authorised(header, TOKEN)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Digest {TOKEN}",
        basic(TOKEN),
        basic(f"{TOKEN}:"),
        "Basic ???",
        "Basic \xff",
        "Bearer \u20ac",
        basic("any:\xe9"),
    ],
)
def test_nothing_else_does(header):
    assert not is_authorised(header, TOKEN)


def test_without_a_token_everybody_may():
    assert is_authorised(None, None)


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared, original = [], hmac.compare_digest

    def compare(given, expected):
        compared.append((given, expected))
        return original(given, expected)

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    is_authorised("Bearer nonsense", TOKEN)
    assert compared == [(b"nonsense", TOKEN.encode())]


def test_the_server_asks_for_it(reward, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(reward, token=TOKEN) as (app, port):
        url = f"http://127.0.0.1:{port}"
        status, answer = post(port, body_of())
        assert status == 401
        assert "needs its token" in answer["detail"]
        refused = httpx.get(f"{url}/metrics", trust_env=False)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        with client_of(port, token="another") as client, pytest.raises(RefusedError, match="401"):
            client(clips())
        with client_of(port, token=TOKEN) as client:
            assert len(client(clips())) == 2
        assert app.state.service.metrics.clips.values == {(): 2}
    assert TOKEN not in caplog.text


def test_a_refused_client_cannot_fill_the_memory(reward):
    """Its body is not read."""
    with serving(reward, token=TOKEN) as (app, port):
        status, _ = post(port, bytes(8 << 20))
        assert status == 401
        assert app.state.service.pending.total == 0


def test_tokens_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    assert read_token(None) is None
    monkeypatch.setenv(access.TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    (tmp_path / "token").write_text("from-a-file\n")
    assert read_token(tmp_path / "token") == "from-a-file"


@pytest.mark.parametrize("text", ["", " \n", "two words", "caf\u00e9"])
def test_unusable_tokens_are_refused_without_showing_them(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ValueError, match="must hold one token") as refused:
        read_token(tmp_path / "token")
    assert not text.strip() or text.strip() not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_this_machine_needs_no_token(host):
    assert is_loopback(host)
    check_address(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.3", "scorer.example", "", "127.0.0.1.x"])
def test_other_addresses_do(host):
    with pytest.raises(ValueError, match=r"needs a token: pass --token_file"):
        check_address(host, None)
    check_address(host, TOKEN)


def test_neither_function_nor_command_listen_to_others_without_one(tmp_path, capsys):
    with pytest.raises(ValueError, match="needs a token"):
        server.serve(create_app(reward_of()), host="0.0.0.0", port=0)
    judge = str(saved_judge(tmp_path))
    assert main(["serve", judge, "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "needs a token" in capsys.readouterr().err
