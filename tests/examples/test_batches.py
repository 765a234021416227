"""DPO and reward gradients: an update does not depend on the batches that it is made in."""

import gc
import importlib

import pytest
import torch

from gtsvj_reward.alignment import Rollout
from gtsvj_reward.alignment.processes import mean_metrics
from tests.examples.tiny_runs import recorded_gradients, some_pairs, tiny_run

SCRIPTS = {
    "draft": ("reward_gradients", {"drift_weight": 2.0, "backprop_steps": [2]}),
    "refl": ("reward_gradients", {"method": "refl", "refl_steps": [1], "target": 0.0}),
}


def compare(found, expected, logged, other):
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert other == pytest.approx(logged, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", SCRIPTS)
def test_reward_gradients_do_not_depend_on_the_batches(method, tmp_path):
    name, settings = SCRIPTS[method]
    script, found = importlib.import_module(name), {}
    for size in (12, 5):
        args, run = tiny_run(
            script.RewardGradientArguments, tmp_path / str(size), batch_size=size, **settings
        )
        (gradient,), logged = record(run, lambda run=run, args=args: script.iterate(run, args, 0))
        found[size] = gradient, logged
    compare(found[5][0], found[12][0], found[5][1], found[12][1])


def test_dpo_does_not_depend_on_the_batches(tmp_path):
    script, found = importlib.import_module("dpo"), {}
    for size in (10, 4, 1):
        args, run = tiny_run(script.DPOArguments, tmp_path / str(size), batch_size=size, beta=5.0)
        texts, chosen, rejected = some_pairs(run, 5)

        def update(run=run, args=args, texts=texts, chosen=chosen, rejected=rejected):
            before = script.drift(run, args, texts, chosen, 0)
            learned = script.learn(run, args, (texts, chosen, rejected), range(1000), (0, 0))
            return [*before, *learned]

        (gradient,), logged = record(run, update)
        found[size] = gradient, logged
    for size in (4, 1):
        compare(found[size][0], found[10][0], found[size][1], found[10][1])


def test_only_clean_latents_are_kept_where_no_step_is_learned_from(tmp_path):
    script, alive = importlib.import_module("dpo"), []
    args, run = tiny_run(script.DPOArguments, tmp_path, batch_size=3, num_inference_steps=1)
    others = rollouts_alive()
    run.policy.transformer.register_forward_pre_hook(
        lambda *_: alive.append(rollouts_alive() - others)
    )
    texts, keys = run.sampler.clips(0)
    clean = run.sampler.clean(texts, keys)
    script.mined(run, args, 0)
    assert alive == [0] * 8  # passes, of four batches each
    expected = torch.cat([made.clean for made in run.sampler.rollouts(texts, keys, eta=0.0)])
    assert torch.equal(clean, run.policy.unpadded(expected))


def rollouts_alive():
    return sum(type(thing) is Rollout for thing in gc.get_objects())


def record(run, update):
    """Gradients of an update, and the means of what it logs."""
    gradients = recorded_gradients(run)
    return gradients, mean_metrics(run.accelerator, update())
