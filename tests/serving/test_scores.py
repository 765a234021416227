"""The server says what the judge says."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from gtsvj_reward import TextCondition
from gtsvj_reward.judge import Geometry
from gtsvj_reward.serving import RefusedError
from tests.serving.server import (
    assert_same_scores,
    body_of,
    client_of,
    post,
    reward_of,
    serving,
    varied,
)
from tests.tiny import clips, tiny_aspect_judge, tiny_judge, tiny_space


def test_scores_are_the_offline_ones(port, offline):
    latents = varied(6)
    with client_of(port) as client:
        scores = client(latents, fps=8.0, num_frames=17)
    assert scores.dtype == torch.float32
    assert_same_scores(scores, offline(latents))


def test_details_are_the_offline_ones():
    reward = reward_of(tiny_aspect_judge(stage="preference"))
    latents = varied(3)
    with serving(reward) as (_, port), client_of(port) as client:
        found = client.details(latents, fps=8.0)
    expected = reward.details(latents)
    assert_same_scores(found.rewards, expected.rewards)
    assert_same_scores(found.raw, expected.raw)
    assert found.aspects.keys() == expected.aspects.keys()
    for name, values in expected.aspects.items():
        assert_same_scores(found.aspects[name], values)
    for ours, theirs in zip(found.trajectory, expected.trajectory, strict=True):
        assert_same_scores(ours, theirs)
    assert found.notes == (None, None, None)


def test_raw_scores_on_request(port, offline):
    with client_of(port) as client:
        raw = client(varied(3), normalize=False)
    assert_same_scores(raw, offline(varied(3), normalize=False))
    assert not torch.allclose(raw, offline(varied(3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents_are_scored_as_they_are(port, offline, dtype):
    latents = varied(3).to(dtype)
    with client_of(port) as client:
        assert_same_scores(client(latents), offline(latents))
    assert not torch.equal(latents.float(), varied(3))


def test_clips_of_several_sizes_keep_their_order(port, offline):
    mixed = [clip for seed in range(3) for clip in (clips(1, seed=seed)[0],
             clips(1, 4, 4, 8, seed=seed)[0], clips(1, 7, 8, 16, seed=seed)[0])]  # fmt: skip
    with client_of(port, clips_per_request=2) as client:
        scores = client(mixed)
    assert_same_scores(scores, offline(mixed))
    assert scores.unique().numel() == 9


def test_padding_is_dropped():
    reward = reward_of(tiny_judge("1.5"))
    latents = varied(3, 6)  # 17 frames are 5 latents, padded to 6
    with serving(reward) as (_, port), client_of(port) as client:
        scores = client(latents, num_frames=17)
        padded = client(latents)
    assert_same_scores(scores, reward(latents[:, 1:]))
    assert not torch.allclose(scores, padded)


def test_prompts_reach_a_judge_that_reads_them():
    reward = reward_of(tiny_judge(text_input="prompt"))
    text = TextCondition(torch.randn(4, 6, 8))
    latents = clips(1).expand(4, -1, -1, -1, -1)
    with serving(reward) as (_, port), client_of(port, clips_per_request=1) as client:
        with ThreadPoolExecutor(4) as pool:
            rows = [text.rows(torch.tensor([index])) for index in range(4)]
            scores = torch.cat(list(pool.map(lambda row: client(latents[:1], text=row), rows)))
        with pytest.raises(RefusedError, match="pass `text`"):
            client(latents)
        with pytest.raises(RefusedError, match="expected text embeddings"):
            client(latents[:1], text=TextCondition(torch.randn(1, 5, 8)))
        with pytest.raises(RefusedError, match=r"encoded for a Wan.*, this is a CogVideoX"):
            client(latents[:1], text=replace(text.rows(torch.tensor([0])), family="Wan"))
    assert_same_scores(scores, reward(latents, text=text))


def test_untrained_geometry_is_reported_where_it_is_allowed():
    narrow = Geometry(latent_frames=(5, 5), height=(8, 8), width=(12, 12), fps=(8.0, 8.0))
    reward = reward_of(tiny_judge(geometry=narrow), allow_untrained_geometry=True)
    with serving(reward) as (_, port), client_of(port) as client:
        found = client.details(clips(1, 4), fps=24.0)
    assert found.notes == ("latent frames 4 outside 5..5, fps 24 outside 8..8",)


def test_requests_that_wait_together_share_a_batch(reward, offline):
    latents = varied(16)
    with serving(reward, max_wait_ms=500, max_batch_size=8) as (app, port):
        barrier = threading.Barrier(16)

        def ask(index):
            barrier.wait()
            return client(latents[index : index + 1])

        with client_of(port) as client, ThreadPoolExecutor(16) as pool:
            scores = torch.cat(list(pool.map(ask, range(16))))
        sizes = app.state.service.metrics.batch_clips
    assert_same_scores(scores, offline(latents))
    assert sum(sizes.counts) < 16
    assert sizes.total == 16


def test_a_bad_clip_condemns_no_companion(reward, offline):
    """Prompts and sizes are checked early; what only the judge finds is said of that job alone."""
    space = tiny_space(expected_std=None)
    judge = tiny_judge(latent_space=space)
    reward = reward_of(judge)
    good, huge = clips(1), torch.full((1, 5, 4, 8, 12), 3e38)
    with serving(reward, max_wait_ms=300) as (app, port), ThreadPoolExecutor(4) as pool:
        bodies = [body_of(x, space=space) for x in (good, huge, good, huge)]
        answers = list(pool.map(lambda body: post(port, body), bodies))
        assert app.state.service.metrics.batch_clips.counts[0] == 0, "no batch was shared"
    assert [status for status, _ in answers] == [200, 422, 200, 422]
    assert "the score of clip 0 is nan" in answers[1][1]["detail"]
    assert_same_scores(torch.tensor(answers[0][1]["scores"]), reward(good), std=1.0)
