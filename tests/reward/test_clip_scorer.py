"""A reward that is told once what clips it gets."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.latents import LatentSpaceError
from gtsvj_reward.reward import GeometryError, NonFiniteError, RewardEnsemble, WeightedReward
from gtsvj_reward.reward.clip_scorer import ClipScorer
from tests.tiny import clips, tiny_aspect_judge, tiny_judge, tiny_space


@pytest.fixture
def reward():
    return GTSVJReward(tiny_aspect_judge())


@pytest.fixture
def on_pixels(tiny_vae):
    return GTSVJReward(tiny_judge(latent_space=LatentSpace.from_vae(tiny_vae)))


def frames(batch=2, time=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, 3, 32, 48, generator=generator)


@pytest.mark.parametrize("layout", ["BTCHW", "BCTHW"])
@pytest.mark.parametrize("normalize", [True, False])
def test_latents_score_as_the_reward_itself(reward, layout, normalize):
    scorer = ClipScorer(reward, space=tiny_space(), fps=8.0, normalize=normalize)
    batch, lone = clips(2), clips(1, time=4, seed=1)[0]
    given = [clip if layout == "BTCHW" else clip.transpose(0, 1) for clip in (*batch, lone)]
    found = scorer.score_latents(given, layout)
    expected = reward.details([*batch, lone], normalize=normalize)
    torch.testing.assert_close(found.rewards, expected.rewards, rtol=0, atol=0)
    assert found.components.keys() == {"raw", "clear", "focus", "movement smoothness"}
    torch.testing.assert_close(found.components["raw"], expected.raw, rtol=0, atol=0)
    assert found.numbers()["focus"] == expected.aspects["focus"].tolist()
    assert expected.rewards.std() > 1e-3, "rewards are all alike: the test proves nothing"
    alone = scorer.score_latents(torch.stack(given[:2]), layout).rewards
    torch.testing.assert_close(alone, expected.rewards[:2], rtol=0, atol=1e-5)


def test_frames_score_as_score_frames_does(on_pixels, tiny_vae):
    scorer = ClipScorer(on_pixels, vae=tiny_vae, fps=8.0)
    expected = on_pixels.score_frames(frames(), vae=tiny_vae, fps=8.0)
    torch.testing.assert_close(scorer.score_frames(frames()).rewards, expected, rtol=0, atol=0)
    # Videos of several lengths; the first 9 frames of 12, since 12 is not 4f + 1
    short = ClipScorer(on_pixels, vae=tiny_vae, first_frames=9)
    found = short.score_frames([frames(1, time=12)[0], frames(1, time=9, seed=1)[0]])
    torch.testing.assert_close(
        found.rewards,
        torch.cat([on_pixels.score_frames(x, vae=tiny_vae)
                   for x in (frames(1, time=12)[:, :9], frames(1, seed=1))]),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"video 0: expected 4f \+ 1 frames .* got 12"):
        scorer.score_frames([frames(1, time=12)[0]])
    with pytest.raises(ValueError, match="video 1: expected at least 9 frames, got 5"):
        short.score_frames([frames(1)[0], frames(1, time=5)[0]])


def test_gradients_are_those_of_the_reward(reward, on_pixels, tiny_vae):
    for scorer, given, direct in (
        (ClipScorer(reward, space=tiny_space()).score_latents, clips(), reward),
        (
            ClipScorer(on_pixels, vae=tiny_vae).score_frames,
            frames(),
            lambda x: on_pixels.score_frames(x, vae=tiny_vae),
        ),
    ):
        found, expected = given.clone().requires_grad_(), given.clone().requires_grad_()
        scorer(found).rewards.sum().backward()
        direct(expected).sum().backward()
        torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=0)
        assert found.grad.abs().max() > 1e-6
        with torch.no_grad():
            assert not scorer(found).rewards.requires_grad


def test_combinations_and_callables_have_their_parts(reward):
    scores = reward(clips())
    both = WeightedReward([("a", reward, 1.0), ("b", reward, 0.5)])
    found = ClipScorer(both, space=tiny_space()).score_latents(clips())
    torch.testing.assert_close(found.rewards, 1.5 * scores)
    assert found.components.keys() == {"a", "b"}
    seeds = RewardEnsemble({"0": reward, "1": reward})
    assert ClipScorer(seeds, space=tiny_space()).score_latents(clips()).components.keys() == {
        "0",
        "1",
    }

    def own(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
        return latents.mean(dim=(1, 2, 3, 4)) * (0.0 if fps == 8 else torch.nan)

    found = ClipScorer(own, space=tiny_space(), fps=8.0).score_latents(clips())
    assert found.components == {}
    with pytest.raises(NonFiniteError, match="gave clip 0 the score nan"):
        ClipScorer(own, space=tiny_space()).score_latents(clips())


def test_what_was_not_named_is_refused(reward, on_pixels, tiny_vae):
    with pytest.raises(ValueError, match="give `space` of the generator's latents"):
        ClipScorer(reward)
    with pytest.raises(ValueError, match="got latents of an unknown space"):
        ClipScorer(on_pixels, vae=tiny_vae).score_latents(clips())
    with pytest.raises(ValueError, match="got decoded frames, but no VAE to encode them"):
        ClipScorer(reward, space=tiny_space()).score_frames(frames())


def test_foreign_spaces_are_refused_by_name_before_anything_is_generated(reward, tiny_vae):
    with pytest.raises(LatentSpaceError, match=r"of `tiny`.*the latents to score are of `wan-2\.1"):
        ClipScorer(reward, space=tiny_space(id="wan-2.1"))
    with pytest.raises(LatentSpaceError, match=r"of `tiny`.*what the given VAE encodes to.*cogv"):
        ClipScorer(reward, vae=tiny_vae)
    late = ClipScorer(WeightedReward([("a", reward, 1.0)]), space=tiny_space(id="wan-2.1"))
    with pytest.raises(LatentSpaceError, match=r"got latents of `wan-2\.1"):
        late.score_latents(clips())


def test_refusals_of_the_reward_pass(reward, on_pixels, tiny_vae):
    latents = ClipScorer(reward, space=tiny_space(), fps=99.0)
    with pytest.raises(GeometryError, match="99"):
        latents.score_latents(clips())
    bad = clips()
    bad[1, 2] = torch.inf
    with pytest.raises(LatentSpaceError, match=r"latents\[1\] has non-finite"):
        latents.score_latents(bad)
    with pytest.raises(LatentSpaceError, match=r"4 latent channels on axis 1 .*swap axes"):
        latents.score_latents(clips(), "BCTHW")
    pixels = ClipScorer(on_pixels, vae=tiny_vae)
    for wrong, text in (
        (frames() * 255, r"expected frames in \[0, 1\]"),
        (frames() * torch.nan, r"expected frames in \[0, 1\]"),
        (frames().transpose(1, 2), r"of shape \(2, 3, 9, 32, 48\)"),
        (frames()[:, 0], r"single images cannot be scored"),
        ([torch.zeros(9, 3, 32, 48, dtype=torch.uint8)], r"video 0: .*got torch\.uint8"),
    ):
        with pytest.raises(ValueError, match=text):
            pixels.score_frames(wrong)
    assert pixels.score_frames(frames()).rewards.shape == (2,), "an error blocked the scorer"


@pytest.mark.parametrize("concurrent", [False, True])
def test_threads_wait_for_one_another_unless_they_need_not(concurrent):
    class Counting:
        """Notes how many calls there were at once."""

        busy = most = 0
        meeting = threading.Barrier(2)

        def __call__(self, latents, *, space=None, fps=None, num_frames=None, text=None,
                     normalize=True):  # fmt: skip
            self.busy += 1
            if concurrent:
                self.meeting.wait(60)  # fails unless two calls are here at once
            time.sleep(0.01)
            self.most, self.busy = max(self.most, self.busy), self.busy - 1
            return latents.mean(dim=(1, 2, 3, 4))

    reward = Counting()
    scorer = ClipScorer(reward, space=tiny_space(), concurrent=concurrent)
    batches = [clips(seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: scorer.score_latents(batch).rewards, batches))
    assert (reward.most > 1) == concurrent
    for batch, scores in zip(batches, found, strict=True):
        torch.testing.assert_close(scores, batch.mean(dim=(1, 2, 3, 4)))


def test_judge_and_vae_move_together(on_pixels, tiny_vae):
    vae = copy.deepcopy(tiny_vae)
    ClipScorer(on_pixels, vae=vae).to("meta")
    assert on_pixels.device.type == vae.device.type == "meta"
