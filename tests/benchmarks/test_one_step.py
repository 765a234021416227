"""What the graph of one step keeps beside that of the whole chain."""

from dataclasses import replace

import pytest

from benchmarks import align_memory
from benchmarks.align_memory import setting
from benchmarks.counting import count_gradient
from gtsvj_reward.alignment import predicted_sample
from tests.benchmarks.test_cost import TINY


@pytest.mark.parametrize("recomputing", [False, True])
def test_one_step_at_a_level_costs_a_chain_of_one_and_each_further_step_the_same(
    monkeypatch, recomputing
):
    told = replace(align_memory.TOLD["CogVideoXTransformer3DModel"], words=6)
    monkeypatch.setitem(align_memory.TOLD, "CogVideoXTransformer3DModel", told)
    found = setting(TINY, (9, 64, 96), recomputing)

    def at_a_level():
        latents = predicted_sample(found.policy, found.prompts, [(0,)], steps=3, stop=1)
        return found.score(latents)

    kept = []
    for loss in (at_a_level, *(lambda last=last: found.through(last) for last in (1, 2, 3))):
        kept.append(count_gradient(loss, found.policy.transformer, found.judge).saved)
        found.policy.transformer.zero_grad()
    level, one, two, three = kept
    assert level == pytest.approx(one, rel=0.02)
    assert three - two == pytest.approx(two - one, rel=0.02)
    assert two - one > 0.1 * one
