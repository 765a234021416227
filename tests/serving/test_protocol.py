"""Bytes in, bytes out."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward import TextCondition
from gtsvj_reward.serving.protocol import (
    MalformedError,
    ScoreRequest,
    read_request,
    write_request,
)
from gtsvj_reward.serving.replies import ScoreReply, read_reply, write_reply
from tests.serving.server import body_of
from tests.tiny import clips, tiny_space

REPLY = ScoreReply(
    scores=(0.1, -2.0),
    raw_scores=(0.3, -0.75),
    aspects={"clear": (1.5, 4.0)},
    trajectory=((0.25, 0.35), (-1.0, -0.5)),
    untrained_geometry=(None, "fps 60 outside 8..30"),
)


@given(
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    shape=st.tuples(*[st.integers(1, 4)] * 5),
    fps=st.none() | st.floats(1e-3, 1e3),
    num_frames=st.none() | st.integers(1, 10**9 - 1),
    words=st.none() | st.integers(1, 4),
    whole=st.booleans(),
    normalize=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_request_survives_the_wire(dtype, shape, fps, num_frames, words, whole, normalize):
    text = None
    if words is not None:
        mask = torch.rand(shape[0], words) < 0.5
        text = TextCondition(torch.randn(shape[0], words, 3), mask, torch.randn(shape[0], 2))
    sent = ScoreRequest(
        latents=torch.randn(shape).to(dtype),
        space_id="tiny",
        space=tiny_space(mean=(0.1,) * 4, std=(1.5,) * 4) if whole else None,
        fps=fps,
        num_frames=num_frames,
        text=text,
        normalize=normalize,
    )
    got = read_request(write_request(sent), "2", {})
    assert torch.equal(got.latents, sent.latents)
    assert got.latents.dtype == dtype
    assert (got.space_id, got.space, got.fps) == (sent.space_id, sent.space, sent.fps)
    assert (got.num_frames, got.normalize) == (sent.num_frames, sent.normalize)
    if text is None:
        assert got.text is None
    else:
        assert torch.equal(got.text.embeds, text.embeds)
        assert torch.equal(got.text.mask, text.mask)
        assert torch.equal(got.text.pooled, text.pooled)


def test_a_request_by_hand():
    """The layout that `docs/serving.md` promises to clients in other languages."""
    values = torch.arange(48, dtype=torch.float32)
    header = {
        "__metadata__": {"latent_space_id": "cogvideox-2b", "fps": "8", "num_frames": "9"},
        "latents": {"dtype": "F32", "shape": [1, 3, 4, 2, 2], "data_offsets": [0, 192]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = len(text).to_bytes(8, "little") + text + values.numpy().tobytes()
    got = read_request(body, "2", {})
    assert torch.equal(got.latents, values.view(1, 3, 4, 2, 2))
    assert (got.space_id, got.space, got.fps, got.num_frames) == ("cogvideox-2b", None, 8.0, 9)
    assert (got.text, got.normalize) == (None, True)


def test_bytes_that_are_no_booleans_are_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    body = body_of(text=TextCondition(torch.randn(2, 3, 8), mask))
    at = body.index(b"\x01" * 6)
    with pytest.raises(MalformedError, match="not booleans"):
        read_request(body[:at] + b"\x02" + body[at + 1 :], "2", {})


def test_a_reply_survives_the_wire():
    assert read_reply(write_reply(REPLY, "2"), 2, "2") == REPLY


def test_a_reply_of_version_1_has_one_score():
    """On the raw scale, as it was asked for; less what a pessimistic judge takes off."""
    reply = json.loads(write_reply(REPLY, "1"))
    assert reply == {"protocol_version": "1", "raw_scores": [0.1, -2.0]}
    sure = json.loads(write_reply(replace(REPLY, uncertainty=(0.5, 0.25)), "1"))
    assert sure == {**reply, "uncertainty": [0.5, 0.25]}


def test_numbers_that_are_not_finite_are_never_written():
    reply = ScoreReply(
        scores=(float("nan"),),
        raw_scores=(1.0,),
        aspects={},
        trajectory=((1.0,),),
        untrained_geometry=(None,),
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_reply(reply, "2")


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol_version": "1"},
        {"scores": [0.1]},
        {"scores": [0.1, None]},
        {"scores": [0.1, True]},
        {"scores": [0.1, "2"]},
        {"raw_scores": {}},
        {"aspects": []},
        {"aspects": {"clear": [1.0]}},
        {"trajectory": [[0.1]]},
        {"trajectory": [[0.1], 3]},
        {"untrained_geometry": [None]},
        {"untrained_geometry": [None, 3]},
    ],
)
def test_replies_that_are_none_are_refused(changes):
    values = {**json.loads(write_reply(REPLY, "2")), **changes}
    with pytest.raises(MalformedError):
        read_reply(json.dumps(values).encode(), 2, "2")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"scores": NaN}', b"[" * 100_000])
def test_answers_that_are_no_json_objects_are_refused(body):
    with pytest.raises(MalformedError):
        read_reply(body, 2, "2")


def test_scores_of_infinite_size_are_refused():
    text = write_reply(REPLY, "2").replace(b"0.1", b"1e999")
    assert b"1e999" in text
    with pytest.raises(MalformedError, match="must be a list of a finite number"):
        read_reply(text, 2, "2")


def test_latents_on_the_wire_take_their_own_size():
    assert len(body_of(clips(dtype=torch.bfloat16))) < len(body_of(clips())) / 1.8
