import json
import math
from dataclasses import replace

import pytest
import torch

from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.losses import contrastive_loss
from gtsvj_reward.perturbations import GENERATED, PERTURBATIONS, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training import CalibrationSettings, calibrate_perturbations
from gtsvj_reward.training.discriminator import calibration as module
from gtsvj_reward.training.discriminator.calibration import (
    decay_time,
    probabilities,
    running_mean,
    threshold,
)
from tests.tiny import tiny_judge
from tests.training.clips import write_clips

SETTINGS = CalibrationSettings(steps=6, batch_size=4, window=2)


def calibrate(tmp_path, settings=SETTINGS, progress=False):
    real = write_clips(tmp_path / "real", 6)
    return calibrate_perturbations(
        lambda: tiny_judge(trained=False), real.infos, settings, work=tmp_path / "work",
        progress=progress,
    )  # fmt: skip


def test_running_mean_by_hand():
    assert running_mean([4.0, 2.0, 6.0, 0.0], 2) == [4.0, 3.0, 4.0, 3.0]


def test_decay_time_is_searched_after_the_peak():
    norms = [0.1, 1.0, 5.0, 3.0, 1.0, 0.5, 0.9]
    assert decay_time(norms, 1.0, 1) == 5  # Eq. A.2 from the peak on, steps counted from 1
    assert decay_time(norms, 0.6, 1) == 6
    assert decay_time(norms, 0.2, 1) is None  # the small start does not count
    assert decay_time([5.0, 4.0], 5.0, 1) == 1


def test_thresholds_are_relative_to_the_peak_or_absolute():
    assert threshold([1.0, 10.0, 2.0], replace(SETTINGS, window=1)) == 2.0
    assert threshold([1.0, 10.0], replace(SETTINGS, epsilon=1500.0)) == 1500.0


def test_probabilities_by_hand():
    norms = {"a": [1.0] * 30, "b": [3.0] * 20 + [0.0] * 10}
    times = {"a": None, "b": 2}
    by_time = probabilities(norms, times, replace(SETTINGS, steps=6))
    assert by_time == {"a": 6 / 8, "b": 2 / 8}  # the censored run counts with all its steps
    by_gradient = probabilities(norms, times, replace(SETTINGS, method="inverse_gradient"))
    assert by_gradient == pytest.approx({"a": 3 / 4, "b": 1 / 4})  # 1 : 1/3, Eq. A.1


def test_a_calibration_covers_all_kinds_and_is_read_back_as_a_sampler(tmp_path):
    result = calibrate(tmp_path)
    assert set(result.probabilities) == set(PERTURBATIONS)
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert all(len(norms) == 6 and min(norms) > 0 for norms in result.gradient_norms.values())
    sampler = result.sampler()
    assert sampler.real[GENERATED] == 0.30
    assert sampler.generated == result.probabilities
    result.save(tmp_path / "p.json")
    saved = json.loads((tmp_path / "p.json").read_text())
    assert PerturbationSampler.from_dict(saved["sampler"]) == sampler


def test_runs_differ_by_their_perturbation_alone(tmp_path):
    """The first loss of a kind is that of the fresh judge on that kind's first batch."""
    result = calibrate(tmp_path)
    first = [losses[0] for losses in result.losses.values()]
    assert len(set(first)) == len(first)
    again = calibrate(tmp_path / "again")
    assert again.losses == result.losses


def test_recorded_norms_are_over_adapter_and_head_before_they_are_clipped(tmp_path):
    """The first step of one kind, by hand."""
    settings = replace(SETTINGS, steps=1, max_grad_norm=1e-3)
    result = calibrate(tmp_path, settings)
    judge = tiny_judge(trained=False)
    judge.unfreeze()
    generator = keyed_generator(settings.seed, 0)
    infos = write_clips(tmp_path / "real", 6).infos
    chosen = torch.randperm(6, generator=generator)[: settings.batch_size].tolist()
    positive = torch.stack([load_clip(infos[index].path).latents for index in chosen])
    sampler = PerturbationSampler()
    negative = torch.cat([sampler.apply("noisy_segment", x[None], generator) for x in positive])
    first, second = judge.energies(positive).mean(1), judge.energies(negative).mean(1)
    contrastive_loss(first, second, settings.beta).mean().backward()
    squares = {name: p.grad.square().sum().item() for name, p in judge.named_parameters()
               if p.grad is not None}  # fmt: skip
    head = sum(value for name, value in squares.items() if name.startswith("head."))
    assert 0 < head < 0.999 * sum(squares.values()), "the part of the adapter cannot be told"
    [norm] = result.gradient_norms["noisy_segment"]
    assert norm == pytest.approx(math.sqrt(sum(squares.values())), rel=1e-4)


def test_finished_runs_are_not_repeated(tmp_path, monkeypatch):
    result = calibrate(tmp_path)
    (tmp_path / "work" / "frame_drop.json").unlink()
    repeated = []
    single_run = module.single_run
    monkeypatch.setattr(
        module, "single_run", lambda judge, kind, *rest: repeated.append(kind)
        or single_run(judge, kind, *rest),
    )  # fmt: skip
    assert calibrate(tmp_path).losses == result.losses
    assert repeated == ["frame_drop"]
    by_gradient = calibrate(tmp_path, replace(SETTINGS, method="inverse_gradient"))
    assert repeated == ["frame_drop"]
    assert by_gradient.probabilities != result.probabilities


def test_it_says_early_how_long_it_will_take(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gtsvj_reward.progress.SHORT", -1.0)
    shown = calibrate(tmp_path, replace(SETTINGS, steps=1), progress=True)
    said = capsys.readouterr().err
    assert said.count("calibrate: about ") == 1
    assert said.index("calibrate: about ") < said.index("5/5")
    assert "5/5" in said
    again = calibrate(tmp_path, replace(SETTINGS, steps=1), progress=True)
    assert "about" not in capsys.readouterr().err, "nothing is left to do"
    assert again.losses == shown.losses


def test_runs_of_other_settings_are_refused(tmp_path):
    calibrate(tmp_path)
    with pytest.raises(ValueError, match="other settings or clips: use another folder"):
        calibrate(tmp_path, replace(SETTINGS, beta=0.3))


def test_clips_must_fill_a_batch(tmp_path):
    with pytest.raises(ValueError, match="6 clips do not fill a batch of 7"):
        calibrate(tmp_path, replace(SETTINGS, batch_size=7))


def test_recorded_norms_are_those_before_clipping(tmp_path):
    tight = calibrate(tmp_path / "tight", replace(SETTINGS, max_grad_norm=1e-6))
    loose = calibrate(tmp_path / "loose")
    for kind in PERTURBATIONS:
        assert tight.gradient_norms[kind][0] == pytest.approx(loose.gradient_norms[kind][0])
    assert torch.tensor(list(tight.gradient_norms.values())).max() > 1e-3
