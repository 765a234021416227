"""How sure a moment judge is of its scores reaches the clients of all formats."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.serving import RefusedError
from gtsvj_reward.serving.protocol import ScoreRequest, write_request
from gtsvj_reward.serving.reload import noise
from gtsvj_reward.serving.replies import ScoreReply, write_reply
from tests.serving.server import HEADERS, assert_same_scores, client_of, post, serving
from tests.tiny import clips


def toy_clips(reward, count):
    """Noise of a size that the bundled judge was trained on, spread as its clips were."""
    one = noise(reward).clips
    generator = torch.Generator().manual_seed(1)
    return one * (1 + 0.1 * torch.randn(count, *one.shape[1:], generator=generator))


def test_uncertainty_and_pessimism_are_those_of_the_judge():
    hopeful = GTSVJReward.from_pretrained("gtsvj-toy")
    wary = GTSVJReward(hopeful.judge, pessimism=2.0)
    latents = toy_clips(hopeful, 4)
    expected = hopeful.details(latents)
    with serving(wary) as (_, port), client_of(port, space=wary.space) as client:
        found = client.details(latents)
        body = write_request(ScoreRequest(latents=latents, space_id=wary.space.id))
        assert len(post(port, body, HEADERS)[1]["uncertainty"]) == 4
        assert client.health()["uncertainty"]
    assert_same_scores(found.uncertainty, expected.uncertainty)
    assert_same_scores(found.rewards, expected.rewards - 2 * expected.uncertainty)
    assert_same_scores(found.raw, expected.raw)
    first_version = json.loads(write_reply(ScoreReply.from_output(expected), "1"))
    assert first_version["uncertainty"] == pytest.approx(expected.uncertainty.tolist())


def test_latents_that_are_not_spread_as_those_of_training_are_refused():
    """Here as in a process: the judge knows its clips, and the canary of a reload passes."""
    reward = GTSVJReward.from_pretrained("gtsvj-toy")
    good = toy_clips(reward, 2)
    with serving(reward) as (_, port), client_of(port, space=reward.space) as client:
        assert len(client(good)) == 2
        with pytest.raises(RefusedError, match="cannot be scaled latents of the judge's space"):
            client(torch.randn_like(good))


def test_a_judge_that_does_not_know_sends_none(port):
    with client_of(port) as client:
        assert client.details(clips()).uncertainty is None
        assert not client.health()["uncertainty"]
