"""The objective of the DDPO script: what it adds up, weighs, cuts and leaves alone."""

import gc
import importlib

import pytest
import torch

from gtsvj_reward.alignment import PromptStatistics, Rollout, rollout, transition
from gtsvj_reward.alignment.processes import mean_metrics
from tests.examples.tiny_runs import recorded_gradients, tiny_run

CLIPS = 12


@pytest.fixture(scope="module")
def ddpo():
    return importlib.import_module("ddpo")


def gradients(ddpo, folder, **changes):
    """Gradient of each update of one iteration, and what was logged of it."""
    args, run = tiny_run(ddpo.DDPOArguments, folder, clip_range=0.5, **changes)
    found = recorded_gradients(run)
    logged = mean_metrics(run.accelerator, ddpo.iterate(run, args, PromptStatistics(), 0))
    return found, logged


def assert_same(found, expected, tolerance):
    gap = (found - expected).norm() / expected.norm()
    assert expected.norm() > 0
    assert gap < tolerance, gap


@pytest.mark.parametrize("batch_size", [1, 4, 5, 8, 11])
def test_the_gradient_of_an_update_does_not_depend_on_the_batches(ddpo, tmp_path, batch_size):
    args, run = tiny_run(ddpo.DDPOArguments, tmp_path, kl_weight=0.5, clip_range=0.5)
    found = recorded_gradients(run)
    texts, keys = run.sampler.clips(0)
    advantages = torch.randn(CLIPS, generator=torch.Generator().manual_seed(0)).double()
    start = {name: p.detach().clone() for name, p in run.parameters.items()}
    for size in (CLIPS, batch_size):
        args.batch_size = size
        for name, parameter in run.parameters.items():
            parameter.data = start[name].clone()
        ddpo.learn(run, args, run.sampler.rollouts(texts, keys, eta=1.0), advantages)
    whole, split = found
    assert_same(split, whole, 1e-10)


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_an_iteration_does_not_depend_on_the_batches(ddpo, tmp_path, updates):
    """Advantages are float32: differences of 1e-6 are rounding."""
    settings = {"updates_per_epoch": updates, "epochs": 2, "kl_weight": 0.1, "learning_rate": 1e-5}
    whole, logged = gradients(ddpo, tmp_path / "whole", batch_size=CLIPS, **settings)
    assert len(whole) == 2 * updates
    for size in (5, 3):
        split, other = gradients(ddpo, tmp_path / str(size), batch_size=size, **settings)
        for one, two in zip(split, whole, strict=True):
            assert_same(one, two, 1e-5)
        assert other == pytest.approx(logged, rel=1e-4, abs=1e-6)


def test_updates_of_an_epoch_share_the_clips_and_keep_their_advantages(ddpo, tmp_path):
    """At a learning rate near 0 the mean of their gradients is the gradient of one update."""
    ((whole,), _) = gradients(ddpo, tmp_path / "one", batch_size=4)
    parts, _ = gradients(
        ddpo, tmp_path / "three", batch_size=4, updates_per_epoch=3, learning_rate=1e-9
    )
    assert len(parts) == 3
    assert_same(torch.stack(parts).mean(0), whole, 1e-4)


def test_updates_that_clips_cannot_be_spread_over_are_refused(ddpo, tmp_path):
    with pytest.raises(ValueError, match="12 clips of a process cannot be spread evenly over 5"):
        gradients(ddpo, tmp_path, updates_per_epoch=5)
    for changes in ({"epochs": 0}, {"updates_per_epoch": 0}, {"eta": 0.0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            ddpo.DDPOArguments(output_dir="a", **changes)


EVERYTHING = {
    "a window over all steps": {"window": 2},
    "all clips of a prompt": {"keep_clips": 6},
    "all steps": {"timestep_fraction": 0.99},
    "no look at the reference": {"measure_kl": False},
}


@pytest.mark.parametrize("changes", EVERYTHING.values(), ids=EVERYTHING)
def test_techniques_that_leave_nothing_out_change_nothing(ddpo, tmp_path, changes):
    ((plain,), _) = gradients(ddpo, tmp_path / "plain")
    ((found,), logged) = gradients(ddpo, tmp_path / "other", **changes)
    assert_same(found, plain, 1e-5)
    assert ("kl" in logged) == ("measure_kl" not in changes)


def test_filtering_trains_on_the_clips_that_are_left(ddpo, tmp_path):
    """Their mean is that of an update in which the others have no advantage, times 12 / 4."""
    ((found,), _) = gradients(ddpo, tmp_path / "a", keep_clips=2, batch_size=5)
    args, run = tiny_run(ddpo.DDPOArguments, tmp_path / "b", clip_range=0.5)
    texts, keys = run.sampler.clips(0)
    made = run.sampler.rollouts(texts, keys, eta=1.0)
    rewards = run.scores(torch.cat([batch.clean for batch in made]))
    advantages = PromptStatistics().advantages(rewards, texts)
    kept = [f(rewards[g]).item() + g.start for g in (slice(0, 6), slice(6, 12))
            for f in (torch.argmax, torch.argmin)]  # fmt: skip
    mask = torch.zeros(12)
    mask[kept] = 3
    recorded = recorded_gradients(run)
    ddpo.learn(run, args, made, advantages * mask)
    assert_same(found, recorded[0], 1e-4)


def test_dense_rewards_and_steps_left_out(ddpo, tmp_path):
    settings = {"advantages": "group", "dense_rewards": True, "num_inference_steps": 4}
    (gradient,), _ = gradients(ddpo, tmp_path / "a", **settings)
    (sparse,), _ = gradients(ddpo, tmp_path / "b", **settings | {"dense_rewards": False})
    assert gradient.norm() > 0
    cosine = (gradient @ sparse) / (gradient.norm() * sparse.norm())
    assert cosine < 0.999
    (some,), _ = gradients(ddpo, tmp_path / "c", num_inference_steps=4, timestep_fraction=0.34)
    assert some.norm() > 0
    for changes, words in (
        ({"dense_rewards": True}, "`advantages` group"),
        ({"timestep_fraction": 0.0}, "timestep_fraction"),
        ({"window": 5}, "window"),
        ({"kl_weight": 1.0, "measure_kl": False}, "measure_kl"),
        ({"keep_clips": 2, "updates_per_epoch": 2}, "updates_per_epoch"),
    ):
        with pytest.raises(ValueError, match=words):
            ddpo.DDPOArguments(output_dir="a", **changes)


def test_predictions_are_scored_and_gone_before_anything_is_learned(ddpo, tmp_path):
    small = {"num_inference_steps": 2, "clips_per_prompt": 2, "batch_size": 3}
    dense = {"advantages": "group", "dense_rewards": True, "measure_kl": False}
    args, run = tiny_run(ddpo.DDPOArguments, tmp_path, **small, **dense)
    gc.collect()
    others, counts = predictions_alive(), {False: [], True: []}
    run.policy.transformer.register_forward_pre_hook(
        lambda *_: counts[torch.is_grad_enabled()].append(predictions_alive() - others)
    )
    ddpo.iterate(run, args, PromptStatistics(), 0)
    assert counts == {False: [0, 0, 2, 2], True: [0, 0]}  # passes of the two batches


def predictions_alive():
    return sum(len(thing.predictions) for thing in gc.get_objects() if type(thing) is Rollout)


@pytest.mark.parametrize(("sde", "eta"), [("ddim", 1.0), ("flow-grpo", 0.7), ("dance-grpo", 0.3)])
def test_the_noise_is_that_of_the_paper_of_an_sde(ddpo, sde, eta):
    for given in ({}, {"eta": None}):
        assert ddpo.DDPOArguments(output_dir="a", sde=sde, **given).eta == eta
    assert ddpo.DDPOArguments(output_dir="a", sde=sde, eta=0.5).decisive()["eta"] == 0.5


def by_hand(run, advantages, *, eta, kl_weight):
    """Gradient of -A ρ + w KL, mean over clips and stochastic steps, in one batch.

    Before the first update ρ is 1 and nothing is clipped, so that ∇ρ is ∇ log p.
    """
    texts, keys = run.sampler.clips(0)
    policy, prompts = run.policy, run.policy.encode(texts)
    made = rollout(policy, prompts, keys, steps=run.arguments.num_inference_steps, eta=eta)
    objective = 0.0
    for index, timestep in list(enumerate(made.timesteps))[:-1]:  # the last step is deterministic
        step = transition(policy, made.path[index], timestep, prompts, eta)
        with policy.reference():
            mean = transition(policy, made.path[index], timestep, prompts, eta).mean
        variance = step.std**2
        elements = step.mean[0].numel()
        # per element, as the script has it: log p = -(x - μ)² / 2σ² + ..., KL = (μ - μ_ref)² / 2σ²
        gap = (made.path[index + 1] - step.mean).square().flatten(1).sum(1)
        kl = (step.mean - mean).square().flatten(1).sum(1)
        objective = objective + (advantages * gap + kl_weight * kl).sum() / (
            2 * variance * elements * len(texts) * (len(made.timesteps) - 1)
        )
    grads = torch.autograd.grad(objective, list(run.parameters.values()))
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"kl_weight": 3.0},
        {"eta": 0.4},
        {"advantage_clip": 0.5},
        {"advantages": "group"},
        {"num_inference_steps": 4, "kl_weight": 1.0, "batch_size": 5},
    ],
    ids=lambda settings: "-".join(settings) or "defaults",
)
def test_the_gradient_is_that_of_the_objective_written_out(ddpo, tmp_path, settings):
    ((found,), logged) = gradients(ddpo, tmp_path / "a", **settings)
    args, run = tiny_run(ddpo.DDPOArguments, tmp_path / "b", **settings)
    texts, keys = run.sampler.clips(0)
    clean = torch.cat([batch.clean for batch in run.sampler.rollouts(texts, keys, eta=args.eta)])
    rewards = run.scores(clean).double()
    groups = [slice(0, 6), slice(6, 12)] if args.advantages == "group" else [slice(0, 12)]
    advantages = torch.cat(
        [(rewards[g] - rewards[g].mean()) / (rewards[g].std(correction=0) + 1e-6) for g in groups]
    )
    cut = advantages.clamp(-args.advantage_clip, args.advantage_clip)
    assert (cut != advantages).any() == ("advantage_clip" in settings)
    expected = by_hand(run, cut, eta=args.eta, kl_weight=args.kl_weight)
    assert_same(found, expected, 1e-5)
    assert logged["reward"] == pytest.approx(rewards.mean().item(), rel=1e-5)
