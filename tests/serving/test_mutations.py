"""Bodies that nobody would write: each is scored or refused, none is a crash."""

import json
import math
import time
import tracemalloc
from collections import Counter

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from gtsvj_reward import TextCondition
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    PATH,
    VERSION_HEADER,
    MalformedError,
    read_request,
)
from tests.serving.server import body_of
from tests.serving.test_host_protocol import packed
from tests.tiny import clips, tiny_space

SMALL = clips(2, 3, 4, 4)
SEEDS = [
    body_of(SMALL),
    body_of(SMALL, space=None),
    body_of(SMALL.bfloat16(), num_frames=9, normalize=False),
    body_of(SMALL, text=TextCondition(torch.randn(2, 2, 3), torch.ones(2, 2, dtype=torch.bool))),
    packed(clips(1, 1, 4, 4)[0]),
]
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "X", "", 3, None]
NAMES = ["latents", "prompt_embeds", "prompt_mask", "pooled_prompt_embeds", "u", "seeds", "x"]
NUMBERS = st.integers(-3, 70) | st.sampled_from([2**31, 2**63, 2**64, 10**30]) | st.none()


@st.composite
def mutated(draw):
    """A sound body with some bytes changed, lost, doubled or put in; or with other values."""
    body = bytearray(draw(st.sampled_from(SEEDS)))
    if draw(st.booleans()):
        values = len(body) - 8 - int.from_bytes(body[:8], "little")
        at = len(body) - draw(st.integers(4, values))
        new = draw(st.binary(max_size=4))
        body[at : at + len(new)] = new
        return bytes(body)
    for _ in range(draw(st.integers(0, 4))):
        # Most of the first bytes are the header, where a change says something else.
        at = draw(st.integers(0, min(len(body), 700)) | st.integers(0, len(body)))
        length = draw(st.integers(0, 9))
        kind = draw(st.sampled_from(["change", "remove", "insert", "double"]))
        new = draw(st.binary(min_size=length, max_size=length))
        if kind == "change":
            body[at : at + length] = new
        elif kind == "remove":
            del body[at : at + length]
        elif kind == "insert":
            body[at:at] = new
        else:
            body[at:at] = body[at : at + length]
    return bytes(body)


@st.composite
def made_up(draw):
    """A header of the right form that says anything, in front of some bytes."""
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(DTYPES),
            "shape": st.lists(NUMBERS, max_size=6),
            "data_offsets": st.lists(NUMBERS, max_size=3),
        }
    )
    header = draw(st.dictionaries(st.sampled_from(NAMES), entry, max_size=4))
    names = st.sampled_from(["latent_space_id", "latent_space", "fps", "num_frames", "normalize"])
    texts = st.sampled_from(["tiny", "true", "8", "17", "-1", "1e9", "", json.dumps(SPACE)])
    header["__metadata__"] = draw(st.dictionaries(names, texts | st.text(max_size=9), max_size=5))
    text = json.dumps(header).encode()
    values = draw(st.binary(max_size=600))
    return len(text).to_bytes(8, "little") + text + values


SPACE = tiny_space().to_dict()
BODIES = mutated() | mutated() | made_up() | st.binary(max_size=200)
SEEN = Counter()


@given(body=BODIES, version=st.sampled_from(["2", "2", "2", "1"]))
@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def refuse_or_score(client, body, version):
    url = PATH if version == "2" else f"{PATH}?latent_space_id=tiny"
    response = client.post(
        url, content=body, headers={"content-type": CONTENT_TYPE, VERSION_HEADER: version}
    )
    SEEN[response.status_code] += 1
    assert response.status_code in (200, 400, 422), response.text
    answer = response.json()
    if response.status_code == 200:
        assert all(math.isfinite(score) for score in answer["raw_scores"])
    else:
        assert answer["detail"]


def test_bodies_are_scored_or_refused(port):
    SEEN.clear()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        refuse_or_score(client)
        assert client.post(PATH, content=body_of(SMALL)).status_code == 400  # no version
    assert SEEN.total() >= 500
    assert min(SEEN[200], SEEN[400], SEEN[422]) >= 10, f"one-sided, it proves little: {SEEN}"


def headed(text, values=b""):
    """A body with any header."""
    return len(text).to_bytes(8, "little") + text + values


FULL = 65_536 // 8
"""Eight letters so often make the longest header that is read."""
ENTRY = '"t%06d":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
COSTLY = {
    "nested": headed(b"[" * 65_536),
    "nested objects": headed(b'{"a":' * 13_000),
    "small values": headed(b'{"a":[' + b"[],{},0," * (FULL - 1) + b"0]}"),
    "a long shape": headed(b'{"latents":{"dtype":"F32","shape":[' + b"1," * 6_000 + b"1]}}"),
    "many tensors": headed(("{" + "".join(ENTRY % i for i in range(1100)) + "}").encode()),
    "a long number": headed(b'{"latents":{"dtype":"F32","shape":[' + b"9" * 65_000 + b"]}}"),
    "a nested space": headed(
        json.dumps({"__metadata__": {"latent_space": "[" * 60_000}}).encode(), bytes(4)
    ),
    "an announced header": (1 << 62).to_bytes(8, "little") + b"{}",
    "values of no tensor": headed(b"{}", bytes(1 << 24)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_headers_that_cost_more_than_they_weigh_are_refused_cheaply(name):
    body = COSTLY[name]
    began = time.process_time()
    with pytest.raises(MalformedError):
        read_request(body, "2", {})
    assert time.process_time() - began < 1
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError):
            read_request(body, "2", {})
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
