"""How sure a moment judge is of its scores reaches the clients of all formats."""

import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.serving.protocol import ScoreRequest, write_request
from tests.serving.server import HEADERS, assert_same_scores, client_of, post, serving
from tests.tiny import clips


def toy_clips(reward, count):
    """Noise of a size that the bundled judge was trained on."""
    trained, space = reward.config.geometry, reward.space
    size = (count, trained.latent_frames[0], space.channels, trained.height[0], trained.width[0])
    return torch.randn(size, generator=torch.Generator().manual_seed(0)) * torch.linspace(
        0.8, 1.2, count
    ).view(-1, 1, 1, 1, 1)


def test_uncertainty_and_pessimism_are_those_of_the_judge():
    hopeful = GTSVJReward.from_pretrained("gtsvj-toy-moments")
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


def test_a_judge_that_does_not_know_sends_none(port):
    with client_of(port) as client:
        assert client.details(clips()).uncertainty is None
        assert not client.health()["uncertainty"]
