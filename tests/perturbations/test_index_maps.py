"""Laws of the index maps: what each may move, and with what probability."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from gtsvj_reward.perturbations import (
    MINIMUM_STEPS,
    frame_drop_index,
    frame_shuffle_index,
    noisy_segment_slice,
    patch_swap_region,
    slice_pair,
    temporal_slice_swap_index,
)
from gtsvj_reward.random_keys import keyed_generator

MAPS = {
    "frame_shuffle": frame_shuffle_index,
    "frame_drop": frame_drop_index,
    "temporal_slice_swap": temporal_slice_swap_index,
}
steps_and_seed = given(steps=st.integers(MINIMUM_STEPS, 20), seed=st.integers(0, 2**40))


def counts(draw, times=3000):
    """How often each outcome of `draw(generator)` comes up, from one generator."""
    generator = torch.Generator().manual_seed(7)
    return Counter(draw(generator) for _ in range(times))


def assert_uniform(found, outcomes):
    assert set(found) == set(outcomes)
    if len(outcomes) > 1:
        assert chisquare([found[outcome] for outcome in outcomes]).pvalue > 1e-4


@pytest.mark.parametrize("name", MAPS)
@steps_and_seed
@settings(deadline=None, max_examples=80)
def test_is_never_the_identity(name, steps, seed):
    index = MAPS[name](steps, keyed_generator(seed))
    assert index.shape == (steps,)
    assert not torch.equal(index, torch.arange(steps))


@pytest.mark.parametrize("name", ["frame_shuffle", "temporal_slice_swap"])
@steps_and_seed
@settings(deadline=None)
def test_is_a_permutation(name, steps, seed):
    index = MAPS[name](steps, keyed_generator(seed))
    assert sorted(index.tolist()) == list(range(steps))


@steps_and_seed
@settings(deadline=None, max_examples=80)
def test_a_dropped_frame_repeats_an_original_one(steps, seed):
    index = frame_drop_index(steps, keyed_generator(seed)).tolist()
    dropped = [t for t in range(steps) if index[t] != t]
    assert dropped
    assert dropped[0] > 0, "the first frame has no frame before it"
    assert all(index[t] == t - 1 for t in dropped)
    assert all(later - earlier >= 2 for earlier, later in pairwise(dropped))


def test_frame_drop_law():
    # T = 6, so the sets come from the circle of 1..5: five of one frame, and of two all but the
    # five pairs of neighbours, (5, 1) among them. Each frame is in two of the pairs.
    def draw(generator):
        index = frame_drop_index(6, generator).tolist()
        return tuple(t for t in range(6) if index[t] != t)

    found = counts(draw)
    pairs = [(1, 3), (1, 4), (2, 4), (2, 5), (3, 5)]
    for sets in ([(frame,) for frame in range(1, 6)], pairs):
        assert_uniform({s: n for s, n in found.items() if len(s) == len(sets[0])}, sets)
    assert_uniform(Counter(len(s) for s in found.elements()), [1, 2])


@pytest.mark.parametrize("steps", [3, 4, 7, 8, 13])
def test_every_frame_is_dropped_equally_often(steps):
    def draw(generator):
        index = frame_drop_index(steps, generator).tolist()
        return tuple(t for t in range(steps) if index[t] != t)

    dropped = Counter(t for s in counts(draw).elements() for t in s)
    assert_uniform(dropped, range(1, steps))


def test_frame_shuffle_law():
    # T = 3. Size 2 (probability 1/2): one of three transpositions. Size 3 (1/2): one of the five
    # permutations that are not the identity. So a transposition has 1/6 + 1/10, a cycle 1/10.
    found = counts(lambda generator: tuple(frame_shuffle_index(3, generator).tolist()))
    outcomes = [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)]
    shares = [4 / 15, 4 / 15, 4 / 15, 1 / 10, 1 / 10]
    assert set(found) == set(outcomes)
    expected = [share * found.total() for share in shares]
    assert chisquare([found[o] for o in outcomes], expected).pvalue > 1e-4


@given(steps=st.integers(2, 20), seed=st.integers(0, 2**40))
@settings(deadline=None, max_examples=80)
def test_slices_fit_and_do_not_overlap(steps, seed):
    pair = slice_pair(steps, keyed_generator(seed))
    assert 1 <= pair.length <= steps // 2
    assert abs(pair.first - pair.second) >= pair.length
    assert min(pair.first, pair.second) >= 0
    assert max(pair.first, pair.second) + pair.length <= steps


def test_slice_pair_law():
    # T = 5, by hand. Length 1: any two of 5 starts, 20 ordered pairs. Length 2: (0, 2), (0, 3),
    # (1, 3) and back, 6 ordered pairs. Each length has probability 1/2.
    def draw(generator):
        pair = slice_pair(5, generator)
        return pair.length, pair.first, pair.second

    found = counts(draw, 6000)
    singles = [(1, a, b) for a in range(5) for b in range(5) if a != b]
    doubles = [(2, a, b) for a, b in ((0, 2), (0, 3), (1, 3), (2, 0), (3, 0), (3, 1))]
    assert_uniform({k: n for k, n in found.items() if k[0] == 1}, singles)
    assert_uniform({k: n for k, n in found.items() if k[0] == 2}, doubles)
    assert_uniform(Counter(k[0] for k in found.elements()), [1, 2])


@steps_and_seed
@settings(deadline=None)
def test_a_slice_swap_exchanges_what_the_pair_says(steps, seed):
    pair = slice_pair(steps, keyed_generator(seed))
    exchanged, overwritten = pair.exchange(steps).tolist(), pair.overwrite(steps).tolist()
    for t in range(steps):
        in_first = 0 <= t - pair.first < pair.length
        in_second = 0 <= t - pair.second < pair.length
        across = pair.second - pair.first
        assert exchanged[t] == t + across * in_first - across * in_second
        assert overwritten[t] == t + across * in_first


@steps_and_seed
@settings(deadline=None)
def test_a_noisy_segment_is_a_local_slice(steps, seed):
    start, end = noisy_segment_slice(steps, keyed_generator(seed))
    assert 0 <= start < end <= steps
    assert end - start <= steps // 2


@given(
    height=st.integers(1, 30),
    width=st.integers(2, 30),
    seed=st.integers(0, 2**40),
    fraction=st.sampled_from([(0.25, 0.5), (0.01, 0.99), (0.9, 0.99), (0.3, 0.3)]),
)
@settings(deadline=None, max_examples=80)
def test_a_region_fits_and_is_smaller_than_the_frame(height, width, seed, fraction):
    region = patch_swap_region(height, width, keyed_generator(seed), fraction)
    assert 0 <= region.top <= region.top + region.height <= height
    assert 0 <= region.left <= region.left + region.width <= width
    assert 0 < region.height * region.width < height * width
    low, high = fraction
    assert int(low * height) <= region.height <= max(1, high * height)
    assert int(low * width) <= region.width <= max(1, high * width)


@pytest.mark.parametrize("name", [*MAPS, "noisy_segment"])
def test_a_short_clip_is_refused(name):
    draw = {**MAPS, "noisy_segment": noisy_segment_slice}[name]
    with pytest.raises(ValueError, match=f"{name} needs at least 3 latent steps, got T = 2"):
        draw(2, torch.Generator())


def test_one_step_has_no_two_slices():
    with pytest.raises(ValueError, match="at least 2 latent steps, got T = 1"):
        slice_pair(1, torch.Generator())


@pytest.mark.parametrize("fraction", [(0.0, 0.5), (0.5, 0.25), (0.5, 1.0), (float("nan"), 0.5)])
def test_bad_region_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match="region_fraction"):
        patch_swap_region(8, 8, torch.Generator(), fraction)


def test_a_frame_of_one_latent_pixel_has_no_region():
    with pytest.raises(ValueError, match="height 1 x width 1"):
        patch_swap_region(1, 1, torch.Generator())
