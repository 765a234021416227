"""FastVideo's media scorers, called as its `MultiRewardScorer` calls them."""

import pytest
import torch

from gtsvj_reward.integrations.fastvideo import media_scorer
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward.clip_scorer import ClipScorer
from tests.integrations.tiny import videos

PROMPTS = ["a dog", "a cat"]


def multi_reward(scorers, weights, media, prompts):
    """`MultiRewardScorer.__call__`: one number per prompt from each, and their weighted sum."""
    if media.shape[0] != len(prompts):
        raise ValueError("media batch size must match prompt count")
    details = {}
    for name in weights:
        scores = scorers[name](media, prompts).detach().float()
        if scores.ndim != 1 or int(scores.shape[0]) != len(prompts):
            raise ValueError(f"Reward {name!r} must return shape [{len(prompts)}]")
        details[name] = scores
    details["avg"] = sum(weight * details[name] for name, weight in weights.items())
    return details


def test_decoded_media(judge, vae):
    scorer = media_scorer(ClipScorer(judge, vae=vae, fps=8.0))
    brightness = lambda media, prompts: media.mean(dim=(1, 2, 3, 4))  # noqa: E731
    media = videos().transpose(1, 2)
    details = multi_reward({"gtsvj": scorer, "bright": brightness}, {"gtsvj": 2.0, "bright": 1.0},
                           media, PROMPTS)  # fmt: skip
    expected = judge.score_frames(videos(), vae=vae, fps=8.0)
    torch.testing.assert_close(details["gtsvj"], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(details["avg"], 2 * expected + media.mean(dim=(1, 2, 3, 4)))
    assert expected.std() > 1e-4


def test_what_cannot_be_scored_stops_the_trainer(judge, vae, saved):
    media = media_scorer(ClipScorer(judge, vae=vae))
    latents = media_scorer(ClipScorer(judge, space=saved.space))
    with pytest.raises(ValueError, match=r"of rank 5, one per prompt, got shape \(2, 3, 64, 96\)"):
        media(videos()[:, 0], PROMPTS)
    with pytest.raises(ValueError, match="for 1 prompts"):
        media(videos().transpose(1, 2), PROMPTS[:1])
    with pytest.raises(LatentSpaceError, match="expected 4 latent channels"):
        latents(videos().transpose(1, 2), PROMPTS)
    with pytest.raises(ValueError, match="give a scorer of latents or one of decoded media"):
        media_scorer(ClipScorer(judge, vae=vae, space=saved.space))
