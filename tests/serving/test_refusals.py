"""What cannot be scored is refused with a status of 4xx and the reason."""

import io
import json
import re

import httpx
import pytest
import torch
from safetensors.torch import save

from gtsvj_reward import LatentSpace, TextCondition
from gtsvj_reward.serving.protocol import PATH, VERSION_HEADER
from tests.serving.server import (
    HEADERS,
    body_of,
    client_of,
    head_of,
    post,
    raw,
    reward_of,
    serving,
    status_of,
)
from tests.tiny import clips, tiny_judge, tiny_space

GOOD = body_of()


def pickled():
    buffer = io.BytesIO()
    torch.save({"latents": clips()}, buffer)
    return buffer.getvalue()


def plain(tensors=None, **metadata):
    """A body of any tensors and metadata."""
    names = {"latent_space_id": "tiny", **metadata}
    kept = {name: value for name, value in names.items() if value is not None}
    return save({"latents": clips()} if tensors is None else tensors, metadata=kept)


def with_header(text):
    """A body with another header in front of the same values."""
    values = GOOD[8 + int.from_bytes(GOOD[:8], "little") :]
    return len(text).to_bytes(8, "little") + text + values


NAN = clips()
NAN[1, 2, 3, 0, 0] = torch.nan
INFINITE = clips(dtype=torch.float16)
INFINITE[1, 2, 3, 0, 0] = torch.inf

MALFORMED = {
    "nothing": (b"", "cut short, or not safetensors"),
    "text": (b"hello, here are some latents", "cut short, or not safetensors"),
    "pickle": (pickled(), "looks like a pickle"),
    "cut short": (GOOD[:-1], "not a whole safetensors body"),
    "too long": (GOOD + b"\0", "not a whole safetensors body"),
    "no JSON": (with_header(b'{"latents": '), "not JSON"),
    "deep JSON": (with_header(b"[" * 60_000), "not JSON"),
    "list": (with_header(b"[1, 2]"), "JSON object"),
    "long header": (with_header(b" " * (1 << 16) + b"{}"), "at most 65536"),
    "name twice": (with_header(b'{"latents": 1, "latents": 2}'), "given twice"),
    "float64": (plain({"latents": clips().double()}), "type.*'F64'"),
    "pixels": (plain({"latents": clips().byte()}), "type.*'U8'"),
    "no batch": (plain({"latents": clips()[0]}), "5 axes"),
    "no clips": (plain({"latents": clips()[:0]}), "none empty"),
    "no latents": (plain({"prompt_embeds": torch.zeros(1, 2, 3)}), "`latents` is missing"),
    "unknown tensor": (plain({"latents": clips(), "video": clips()}), "unknown tensor 'video'"),
    "unknown setting": (plain(fsp="8"), "unknown settings .'fsp'"),
    "no space": (plain(latent_space_id=None), "`latent_space_id` must name"),
    "half a space": (plain(latent_space='{"id": "tiny"}'), "is invalid: not a latent space"),
    "two spaces": (plain(latent_space=json.dumps(tiny_space(id="x").to_dict())), "must name"),
    "fps": (plain(fps="nan"), "`fps` must be a positive number"),
    "num_frames": (plain(num_frames="-17"), "`num_frames` must be a positive whole number"),
    "normalize": (plain(normalize="yes"), "`normalize` must be 'true' or 'false'"),
    "mask alone": (plain({"latents": clips(), "prompt_mask": torch.ones(2, 3, dtype=torch.bool)}),
                   "need `prompt_embeds`"),
    "rows of prompts": (plain({"latents": clips(), "prompt_embeds": torch.zeros(3, 6, 8)}),
                        "do not go with 2 clips"),
}  # fmt: skip

REFUSED = {
    "foreign name": (plain(latent_space_id="wan-2.1"), "`tiny` .*got latents of 'wan-2.1'"),
    "foreign space": (
        body_of(space_id="wan", space=tiny_space(id="wan")),
        "expected latents of `tiny`.*got latents of `wan`",
    ),
    "other scaling": (body_of(space=tiny_space(scaling_factor=0.7)), "factor 1,.*factor 0.7"),
    "NaN": (body_of(NAN), r"latents\[1\] has non-finite"),
    "infinity": (body_of(INFINITE), r"latents\[1\] has non-finite"),
    "channels": (body_of(torch.randn(1, 5, 3, 8, 12)), "expected 4 latent channels on axis 2"),
    "layout": (body_of(clips(time=5).transpose(1, 2)), "swap axes 1 and 2"),
    "unscaled": (body_of(100 * clips()), "standard deviation"),
    "too long": (body_of(clips(1, 8)), "latent frames 8 outside 3..7"),
    "too large": (body_of(clips(1, 5, 8, 24)), "latent width 24 outside 4..16"),
    "too fast": (body_of(fps=60.0), "fps 60 outside 8..30"),
    "odd size": (body_of(clips(1, 5, 7, 12)), "multiples of the patch size 2"),
    "other length": (body_of(num_frames=33), "33 frames are 9 latent frames"),
    "prompts": (body_of(text=TextCondition(torch.randn(2, 6, 8))), "this judge ignores prompts"),
    "many clips": (body_of(clips(33)), "33 clips in one request, expected at most 32"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies(port, name):
    body, reason = MALFORMED[name]
    status, answer = post(port, body)
    assert status == 400
    assert re.search(reason, answer["detail"]), answer


@pytest.mark.parametrize("name", REFUSED)
def test_bodies_that_the_judge_cannot_score(port, name):
    body, reason = REFUSED[name]
    status, answer = post(port, body)
    assert status == 422
    assert re.search(reason, answer["detail"]), answer


def test_the_good_body_is_good(port):
    assert post(port, GOOD)[0] == 200


@pytest.mark.parametrize("version", [None, "", "3", "2.0"])
def test_unknown_versions(port, version):
    headers = {k: v for k, v in HEADERS.items() if k != VERSION_HEADER}
    if version is not None:
        headers[VERSION_HEADER] = version
    status, answer = post(port, GOOD, headers)
    assert status == 400
    assert "x-drm-protocol-version must be '2'" in answer["detail"]


def test_other_paths_methods_and_types(port):
    assert post(port, GOOD, path="/v2/score")[0] == 404
    assert post(port, GOOD, path="/docs")[0] == 404
    assert httpx.get(f"http://127.0.0.1:{port}{PATH}", trust_env=False).status_code == 405
    status, answer = post(port, GOOD, {**HEADERS, "content-type": "application/json"})
    assert status == 415
    assert "application/octet-stream (safetensors)" in answer["detail"]
    assert post(port, GOOD, path=f"{PATH}?fps=8")[0] == 400


def test_a_judge_without_statistics_gives_raw_scores_only():
    judge = tiny_judge(reward_mean=None, reward_std=None, reward_data=None, geometry=None)
    with serving(reward_of(judge)) as (_, port):
        status, answer = post(port, GOOD)
        assert status == 422
        assert "no `reward_mean`" in answer["detail"]
        assert post(port, body_of(normalize=False))[0] == 200


def test_a_name_alone_is_enough_for_the_judges_own_space(port):
    assert post(port, plain(fps="8"))[0] == 200


def test_one_space_under_two_names_is_taken_whole():
    judge = tiny_judge(latent_space=tiny_space(id="tiny-padded", vae="tiny"))
    with serving(reward_of(judge)) as (_, port):
        assert post(port, plain())[0] == 422
        assert post(port, body_of(space=tiny_space(), space_id="tiny"))[0] == 200


def test_bodies_above_the_limit_are_refused_before_they_are_read(reward):
    with serving(reward, max_body_mib=1 / 16) as (app, port):
        assert post(port, GOOD)[0] == 200
        status, answer = post(port, body_of(clips(20)))
        assert status == 413
        assert "expected at most 65536" in answer["detail"]
        with raw(port) as connection:  # announced, never sent
            connection.sendall(head_of(1 << 40))
            assert status_of(connection) == 413
        with raw(port) as connection:  # not announced, and without end
            head = head_of(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
            connection.sendall(head + (b"4000\r\n" + bytes(0x4000) + b"\r\n") * 5)
            assert status_of(connection) == 413
        assert app.state.service.pending.total == 0


def test_the_space_is_named_by_the_client(port):
    with client_of(port, space=None) as client:
        with pytest.raises(ValueError, match="`space`, the VAE of the latents, is missing"):
            client(clips())
        assert len(client(clips(), space=tiny_space())) == 2


@pytest.mark.parametrize("field", LatentSpace.__dataclass_fields__)
@pytest.mark.parametrize("value", ["[]", '"x"', "true", "1e400", "{}", "1" + 60 * "0"])
def test_spaces_with_fields_of_other_types_are_no_crash(port, field, value):
    space = json.dumps({**tiny_space().to_dict(), field: "HERE"}).replace('"HERE"', value)
    status, answer = post(port, plain(latent_space=space))
    harmless = field in ("id", "vae") and value == '"x"'
    harmless |= field in ("mean", "std") and value == "[]"
    assert status in ((400, 422, 200) if harmless else (400,)), answer
