"""Successive halving: survivors are the pipeline's own clips, for fewer transformer passes."""

import pytest
import torch
from diffusers import CogVideoXDPMScheduler, UniPCMultistepScheduler

from gtsvj_reward.sampling import (
    RewardCallback,
    best_of_n,
    latent_space,
    successive_halving,
)
from gtsvj_reward.sampling.pipelines import as_clips
from tests.sampling.tiny import (
    CALL,
    Failing,
    Quadratic,
    assert_same_clip,
    cogvideox,
    cogvideox_scheduler,
    embeds,
    judge_reward,
    run,
    wan,
)

PIPES = {
    "2b": lambda: cogvideox("2b"),
    "5b": lambda: cogvideox("5b"),
    "1.5": lambda: cogvideox("1.5"),
    "leading": lambda: cogvideox(scheduler=cogvideox_scheduler(timestep_spacing="leading")),
    "wan": wan,
}


@pytest.fixture(params=PIPES)
def pipe(request):
    return PIPES[request.param]()


def halve(pipe, reward=None, n=5, **changes):
    arguments = {
        "look_at": 2,
        "finish": 2,
        "keep_latents": "all",
        **CALL,
        "call_arguments": embeds(),
        **changes,
    }
    return successive_halving(pipe, reward or Quadratic(), None, n, **arguments)


@pytest.mark.parametrize("look_at", [1, 3])
def test_a_survivor_is_its_uninterrupted_run(pipe, look_at):
    found = halve(pipe, look_at=look_at, batch_size=3, seed=4)
    space = latent_space(pipe)
    assert len(found.finished) == 2
    for index, seed, latents in zip(
        found.finished, found.best.seeds, found.best.latents, strict=True
    ):
        assert seed == 4 + index
        own = as_clips(space, run(pipe, seed), 9)[0]
        assert_same_clip(latents, own)
    assert list(found.finished) == sorted(found.finished)


def test_the_best_early_scores_survive(pipe):
    found = halve(pipe, batch_size=2)
    early = []
    for seed in range(5):
        with RewardCallback(pipe, Quadratic(), num_frames=9, steps=[1]) as recorder:
            run(pipe, seed, callback_on_step_end=recorder)
        early += recorder.records[0]["rewards"]
    # Batches of two against single runs: rounding grows by steps, as in `assert_same_clip`.
    torch.testing.assert_close(found.early_scores, torch.tensor(early), rtol=1e-4, atol=1e-4)
    assert set(found.finished) == set(torch.tensor(early).topk(2).indices.tolist())
    assert found.early_scores.unique().numel() == 5


def test_all_finished_is_best_of_n(pipe):
    found = halve(pipe, finish=5, keep=2)
    full = best_of_n(
        pipe, Quadratic(), None, 5, keep=2, keep_latents="all", **CALL, call_arguments=embeds()
    )
    torch.testing.assert_close(found.best.scores, full.scores, rtol=1e-5, atol=1e-4)
    assert found.winners == found.best.winners == full.winners
    for frames, other in zip(found.best.frames, full.frames, strict=True):
        assert abs(frames - other).max() < 1e-5


def test_winners_are_numbered_among_all_candidates():
    found = halve(cogvideox(), finish=3, keep=2)
    order = found.best.scores.argsort(descending=True).tolist()
    assert found.winners == tuple(found.finished[place] for place in order[:2])


@pytest.mark.parametrize(
    ("look_at", "finish", "guided"), [(1, 1, False), (2, 3, True), (3, 4, False)]
)
def test_transformer_passes_are_counted(pipe, look_at, finish, guided):
    rows = []
    pipe.transformer.register_forward_hook(
        lambda _m, _args, given, _out: rows.append(len(given["hidden_states"])), with_kwargs=True
    )
    found = halve(
        pipe,
        n=4,
        look_at=look_at,
        finish=finish,
        batch_size=3,
        guidance_scale=2.0 if guided else 1.0,
    )
    expected = 4 * look_at + finish * (4 - look_at)
    assert found.denoising_steps == expected
    assert sum(rows) == expected * (2 if guided else 1)


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_winners_are_decoded(monkeypatch, keep):
    pipe = cogvideox()
    decodes, decode = [], pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z: (decodes.append(len(z)), decode(z))[1])
    halve(pipe, keep=keep, batch_size=5)
    assert decodes == [1] * keep


def test_a_judge_looks_early_and_late():
    pipe = cogvideox("1.5")
    reward = judge_reward(pipe, "1.5")
    found = halve(pipe, reward, fps=8.0, batch_size=2)
    scores = reward(found.best.latents, space=latent_space(pipe), num_frames=9)
    torch.testing.assert_close(found.best.scores, scores, rtol=1e-4, atol=1e-4)
    assert len(found.best.details.trajectory) == 2


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_pipeline_is_left_as_it_was(pipe, batch_size):
    alone = run(pipe)
    own = set(vars(pipe.scheduler))
    halve(pipe, batch_size=batch_size)
    # The second call of the reward is in the first phase, or in the second.
    with pytest.raises(RuntimeError, match="the reward broke"):
        halve(pipe, Failing(), n=3, batch_size=batch_size)
    assert set(vars(pipe.scheduler)) == own
    assert not pipe.interrupt
    assert torch.equal(run(pipe), alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"look_at": 0}, r"must be in 1..3 \(there are 4 steps\), got 0"),
        ({"look_at": 4}, "got 4"),
        ({"finish": 0}, "must be in keep..n = 1..5, got 0"),
        ({"finish": 6}, "got 6"),
        ({"keep": 3}, "keep..n = 3..5, got 2"),
        ({"keep": 6}, "keep=6"),
        (
            {"call_arguments": {**embeds(), "callback_on_step_end": print}},
            "takes no callbacks, got callback_on_step_end",
        ),
    ],
)
def test_bad_requests_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        halve(cogvideox(), **changes)


def test_multistep_schedulers_are_refused_by_name():
    with pytest.raises(ValueError, match="cannot resume CogVideoXDPMScheduler from latents alone"):
        halve(cogvideox(scheduler=cogvideox_scheduler(CogVideoXDPMScheduler)))
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    with pytest.raises(ValueError, match="cannot resume UniPCMultistepScheduler"):
        halve(wan(UniPCMultistepScheduler(**flow)))
