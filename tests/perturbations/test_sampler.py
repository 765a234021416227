"""Table A.1 as drawn, settings on disk, and keyed draws."""

import copy
import dataclasses
import json
import pickle
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from gtsvj_reward.perturbations import (
    PERTURBATIONS,
    PerturbationSampler,
    noisy_segment,
    patch_swap,
)
from gtsvj_reward.random_keys import keyed_generator

# Table A.1, typed from the paper: real column (plus 0.3 for generated clips), generated column.
REAL = {
    "temporal_slice_swap": 0.04,
    "noisy_segment": 0.10,
    "frame_shuffle": 0.18,
    "frame_drop": 0.18,
    "patch_swap": 0.20,
    "generated": 0.30,
}
FROM_GENERATED = {
    "temporal_slice_swap": 0.05,
    "noisy_segment": 0.15,
    "frame_shuffle": 0.25,
    "frame_drop": 0.25,
    "patch_swap": 0.30,
}
DRAWS = 100_000


def drawn(sampler, generated_available, times=DRAWS):
    generator = torch.Generator().manual_seed(11)
    draws = (sampler.draw(generator, generated_available=generated_available) for _ in range(times))
    return Counter((draw.anchor, draw.kind) for draw in draws)


def p_value(found, expected):
    """Of the chi-squared test of counts against shares; outcomes outside `expected` fail."""
    assert set(found) == set(expected)
    total = found.total()
    return chisquare([found[k] for k in expected], [total * p for p in expected.values()]).pvalue


@pytest.mark.usefixtures("unchecked")
def test_real_anchors_follow_the_table():
    expected = {("real", kind): share for kind, share in REAL.items()}
    assert p_value(drawn(PerturbationSampler(), True), expected) > 1e-4


@pytest.mark.usefixtures("unchecked")
def test_without_generated_clips_the_real_column_is_renormalised():
    expected = {("real", kind): p / 0.7 for kind, p in REAL.items() if kind != "generated"}
    assert p_value(drawn(PerturbationSampler(), False), expected) > 1e-4
    shares = PerturbationSampler().probabilities(False)
    assert shares == pytest.approx({kind: p for (_, kind), p in expected.items()})


@pytest.mark.usefixtures("unchecked")
def test_generated_anchors_follow_the_table():
    sampler = PerturbationSampler(real_anchor_probability=0.0)
    expected = {("generated", kind): share for kind, share in FROM_GENERATED.items()}
    assert p_value(drawn(sampler, True), expected) > 1e-4


@pytest.mark.usefixtures("unchecked")
def test_both_columns_mix_as_asked():
    sampler = PerturbationSampler(real_anchor_probability=0.6)
    expected = {("real", kind): 0.6 * p for kind, p in REAL.items()}
    expected |= {("generated", kind): 0.4 * p for kind, p in FROM_GENERATED.items()}
    assert p_value(drawn(sampler, True), expected) > 1e-4


@pytest.mark.usefixtures("unchecked")
def test_the_chi_squared_test_would_notice_a_swapped_row():
    swapped = {**REAL, "noisy_segment": 0.09, "frame_drop": 0.19}
    expected = {("real", kind): share for kind, share in swapped.items()}
    assert p_value(drawn(PerturbationSampler(), True, 30_000), expected) < 1e-4


def test_without_generated_clips_every_anchor_is_real():
    sampler = PerturbationSampler(real_anchor_probability=0.0)
    assert {anchor for anchor, _ in drawn(sampler, False, 200)} == {"real"}
    with pytest.raises(ValueError, match="needs generated clips"):
        sampler.probabilities(False, anchor="generated")


def test_probabilities_are_the_table():
    sampler = PerturbationSampler()
    assert sampler.probabilities(True) == REAL
    assert sampler.probabilities(True, anchor="generated") == FROM_GENERATED


def test_a_column_of_generated_clips_alone_needs_some():
    sampler = PerturbationSampler(real={"generated": 1.0})
    assert drawn(sampler, True, 50) == {("real", "generated"): 50}
    with pytest.raises(ValueError, match="no generated clips"):
        sampler.draw(torch.Generator(), generated_available=False)


def test_a_kind_of_probability_zero_is_never_drawn():
    sampler = PerturbationSampler(real={"frame_drop": 0.0, "patch_swap": 1.0, "frame_shuffle": 0.0})
    assert drawn(sampler, False, 500) == {("real", "patch_swap"): 500}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"real": {"patch_swap": 0.9}}, "`real` must sum to 1, got 0.9"),
        ({"real": {"patch_swap": 1.1, "frame_drop": -0.1}}, r"not >= 0: {'frame_drop': -0.1}"),
        ({"real": {"patch_swap": float("nan")}}, "not >= 0"),
        ({"real": {"patch_swop": 1.0}}, r"unknown kinds \['patch_swop'\]"),
        ({"real": {}}, "`real` must sum to 1"),
        ({"generated": {"generated": 1.0}}, r"`generated` has unknown kinds \['generated'\]"),
        ({"generated": {"frame_drop": 1.00001}}, "`generated` must sum to 1"),
        ({"real_anchor_probability": 1.5}, "must lie in 0..1, got 1.5"),
    ],
)
def test_bad_probabilities_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        PerturbationSampler(**settings_)


def test_rounding_is_forgiven():
    PerturbationSampler(real={"frame_drop": 0.3333333, "patch_swap": 0.6666666})


def test_settings_survive_json_and_copying():
    sampler = PerturbationSampler(
        real={"patch_swap": 0.25, "generated": 0.75},
        real_anchor_probability=0.5,
        noise_range=(0.2, 0.3),
        one_way=True,
    )
    values = json.loads(json.dumps(sampler.to_dict()))
    assert PerturbationSampler.from_dict(values) == sampler != PerturbationSampler()
    pickle.dumps(sampler)  # how a data loader's worker gets it
    assert copy.deepcopy(sampler) == sampler
    assert PerturbationSampler.from_dict({}) == PerturbationSampler()


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match=r"unknown sampler settings \['reel'\]"):
        PerturbationSampler.from_dict({"reel": {}})


def test_a_sampler_cannot_change():
    column = dict(REAL)
    sampler = PerturbationSampler(real=column)
    column["patch_swap"] = 0.0
    assert sampler.real == REAL
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.one_way = True


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_apply_is_the_operation_of_that_name(kind):
    latents = torch.randn(2, 5, 3, 6, 6, generator=keyed_generator(0))
    perturbed = PerturbationSampler().apply(kind, latents, keyed_generator(8))
    assert torch.equal(perturbed, PERTURBATIONS[kind](latents, generator=keyed_generator(8)))


def test_apply_uses_the_settings():
    latents = torch.randn(2, 5, 3, 6, 6, generator=keyed_generator(0))
    sampler = PerturbationSampler(noise_range=(3.0, 4.0), one_way=True, region_fraction=(0.7, 0.9))
    noisy = sampler.apply("noisy_segment", latents, keyed_generator(8))
    swapped = sampler.apply("patch_swap", latents, keyed_generator(8))
    generators = keyed_generator(8), keyed_generator(8)
    expected = noisy_segment(latents, generator=generators[0], noise_range=(3.0, 4.0))
    assert torch.equal(noisy, expected)
    expected = patch_swap(
        latents, generator=generators[1], one_way=True, region_fraction=(0.7, 0.9)
    )
    assert torch.equal(swapped, expected)
    assert not torch.equal(swapped, patch_swap(latents, generator=keyed_generator(8)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("generated", "its negative is a generated clip"), ("blur", "'blur' is not a perturbation:")],
)
def test_apply_refuses_what_is_no_perturbation(kind, message):
    with pytest.raises(ValueError, match=message):
        PerturbationSampler().apply(kind, torch.zeros(1, 5, 3, 6, 6), torch.Generator())
