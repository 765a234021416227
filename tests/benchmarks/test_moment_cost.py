"""What the account of a moment judge counts, worked out by hand, and the size of its checkpoint."""

import pytest
import torch

from benchmarks.counting import count_gradient
from benchmarks.moment_cost import (
    MODEL,
    checkpoint_bytes,
    moment_judge,
    readout_costs,
    student,
    traffic,
)
from gtsvj_reward.judge.moments import block_moments, latent_moments
from gtsvj_reward.judge.readout import tap_widths
from studies.moments_rows import ROWS
from tests.judge.test_moment_judge import LATER, moment_judge as tiny_moment_judge

FLOAT = 4


def test_bytes_and_operations_of_known_operators():
    x, y = torch.zeros(10, 20, device="meta"), torch.zeros(20, 30, device="meta")
    added = traffic(lambda: x + x.view(10, 20))  # a view moves nothing
    assert (added.operations, added.moved) == (200, 3 * 200 * FLOAT)
    product = traffic(lambda: x @ y)
    assert product.operations == 2 * 10 * 20 * 30
    assert product.moved == (200 + 600 + 300) * FLOAT
    mean = traffic(lambda: x.mean(dim=1))
    assert (mean.operations, mean.moved) == (200, 210 * FLOAT)


def test_a_judge_of_the_full_2b_has_a_small_checkpoint_and_costs_little_beside_the_blocks():
    features = sum(tap_widths((0, 10, 20, 30), 16, 1920))
    assert features == 40_432
    transformer = MODEL.transformer()
    judge = moment_judge(transformer)
    assert judge.config.taps == [0, 10, 20, 30]
    readout = 21 * features + 21 + features + 1  # aspects and the energy
    posterior = 514**2 + 21**2  # 512 bins, the constant, the energy; noise between aspects
    assert checkpoint_bytes(judge) == FLOAT * (readout + 2 * features + posterior)
    assert checkpoint_bytes(judge) < 8e6

    # One block and the latents: by default three of 30 blocks are read, a tenth as many.
    whole, tokens = readout_costs(student(transformer, 1, 1))
    assert 0 < whole.operations - tokens.operations < 0.03 * tokens.operations
    counted = {row.name: row.tflop for row in ROWS if row.tflop}
    block = whole.operations / 1e12
    for name, blocks in {"reward": 30, "student_3": 15, "student_2": 10, "student_1": 5}.items():
        assert counted[name] == pytest.approx(blocks * block, rel=0.01)
    alone = student(transformer, 0, 1)
    own = traffic(lambda: alone(MODEL.clip())).operations / 1e12
    assert counted["student_0"] == pytest.approx(own, rel=0.01)


def test_gradients_of_earlier_taps_do_not_wait_for_the_blocks_behind_them():
    judge = tiny_moment_judge(**LATER).to("meta")
    latents = torch.zeros(1, 5, 4, 32, 32, device="meta", requires_grad=True)

    def read_after_the_call():
        tokens = judge.backbone(latents, timestep=0.0, taps=[1, 3, 4])
        parts = [block_moments(each, 16, 16) for each in tokens.values()]
        return judge.from_moments(torch.cat([latent_moments(latents, range(5)), *parts], 2)).scores

    ours = count_gradient(lambda: judge(latents).scores, judge)
    after = count_gradient(read_after_the_call, judge)
    assert judge.config.taps == [0, 1, 3, 4]
    assert ours.saved == after.saved
    assert ours.peak < after.peak - FLOAT * 5 * 16 * 16 * judge.backbone.dim
