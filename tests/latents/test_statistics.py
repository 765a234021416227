"""How latents are spread: by hand, and what tells other latents apart."""

import json
import math
from dataclasses import asdict

import pytest
import torch

from gtsvj_reward.assets import folder_of
from gtsvj_reward.judge import read_config
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.json_types import from_values
from gtsvj_reward.latents.statistics import LatentStatistics
from gtsvj_reward.toy.pipeline import load_pipeline, sample
from gtsvj_reward.toy.world import captions


def clip(mean, std, seed=0, time=3):
    """Latents of two channels with exactly these means and deviations."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, time * 6 * 4, generator=generator)
    values = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True, correction=0)
    values = values * torch.tensor(std)[:, None] + torch.tensor(mean)[:, None]
    return values.unflatten(1, (time, 6, 4)).transpose(0, 1)


def training(count=32):
    """Clips of means (0, 1) ± 0.2 and deviations (1, 2) times and over exp(0.1)."""
    return [
        clip(
            (0.2 * (-1) ** i, 1.0 - 0.2 * (-1) ** i),
            (math.exp(0.1 * (-1) ** (i // 2)), 2 * math.exp(0.1 * (-1) ** (i // 2))),
            seed=i,
        )
        for i in range(count)
    ]


def test_by_hand():
    found = LatentStatistics.of(training())
    assert found.clips == 32
    assert found.mean == pytest.approx((0, 1), abs=1e-6)
    # Half of 32 clips at +0.2, half at -0.2: variance 32/31 of 0.04, and likewise of 0.01.
    assert found.mean_spread == pytest.approx([0.2 * math.sqrt(32 / 31)] * 2, rel=1e-4)
    assert found.log_std == pytest.approx((0, math.log(2)), abs=1e-6)
    assert found.log_std_spread == pytest.approx([0.1 * math.sqrt(32 / 31)] * 2, rel=1e-4)
    # Both channels of a clip are a tenth off, the second one's mean a fifth, either way: a common
    # factor explains most of the first, and the better the more it goes with the second.
    assert 0.05 < found.factor < 0.15
    assert 0.05 < found.factor_spread <= found.factor
    assert 0.5 < found.distance < 1.2
    assert LatentStatistics.of(training(31)) is None


def test_clips_of_training_and_others_like_them_pass():
    clips = training(36)
    found = LatentStatistics.of(clips[:32])
    assert [found.complaint([one]) for one in clips] == [None] * 36
    assert found.complaint(clips) is None
    assert found.complaint([clip((0.0, 1.0), (1.0, 2.0), time=5)]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: 2.4 * x, r"2.\d times as large .* 32 clips .* 0.59 to 1.7 times"),
        (lambda x: x / 2.2, r"0.4\d* times as large"),
        (lambda x: x.flip(1), "channels are spread otherwise .* at most 1.8 expected"),
        (lambda x: x + torch.tensor([0.0, 2.0])[:, None, None], "channels are spread otherwise"),
        (
            lambda x: torch.zeros_like(x),
            r"channels are spread otherwise .*: \d+.\d deviations apart",
        ),
    ],
)
def test_other_latents_are_told_apart(change, message):
    found = LatentStatistics.of(training())
    for clips in (training(1), training(5)):
        assert found.complaint([change(one) for one in clips]) is not None
    with pytest.raises(ValueError, match=message):
        raise ValueError(found.complaint([change(one) for one in training(4)]))


def test_one_odd_clip_among_usual_ones_is_no_sign_of_another_scale():
    found = LatentStatistics.of(training())
    odd = 2.2 * training(1)[0]
    assert found.complaint([odd]) is not None
    assert found.complaint([*training(7), odd]) is None


def test_they_go_through_json():
    found = LatentStatistics.of(training())
    assert from_values(LatentStatistics, json.loads(json.dumps(asdict(found)))) == found


def test_generated_clips_of_few_steps_pass_one_by_one_and_other_spaces_do_not():
    # They are farther off than any clip that the bundled judge was fitted to, by up to 1.6 times.
    found = read_config(folder_of("gtsvj-toy")).latent_statistics
    prompts = captions()[::12]
    for steps in (2, 4):
        clips = list(sample(load_pipeline(), prompts, seeds=range(8), steps=steps))
        assert [found.complaint([one]) for one in clips] == [None] * 8
        assert found.complaint(clips) is None
    swapped = [one.flip(1) for one in clips]  # (time, channel, height, width): other channels
    assert "spread otherwise" in found.complaint(swapped)
    assert all("spread otherwise" in found.complaint([one]) for one in swapped)
    scale = LatentSpace.from_pipeline(load_pipeline()).scaling_factor
    assert "times as large" in found.complaint([one / scale for one in clips])


def test_clips_that_are_bad_are_not_refused():
    # A judge is asked about faults: blur alone made the demo's latents up to 1.6 times smaller.
    found = LatentStatistics.of(training())
    assert 3.5 * found.factor_spread < math.log(1.5), "the training clips themselves differ so"
    for factor in (1 / 1.5, 1.5):
        assert found.complaint([factor * one for one in training(5)]) is None
