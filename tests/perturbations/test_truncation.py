"""How long the kept prefix is, and that it is a prefix."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from gtsvj_reward.perturbations import (
    latent_steps,
    lengths_between,
    truncate,
    truncated_length,
)
from gtsvj_reward.random_keys import keyed_generator


def lengths(steps, times=4000, **options):
    generator = torch.Generator().manual_seed(5)
    return Counter(truncated_length(steps, generator=generator, **options) for _ in range(times))


@pytest.mark.parametrize(
    ("seconds", "fps", "expected"),
    [
        (6.0, 8.0, 12),  # 48 frames: 1 + 47 // 4
        (6.125, 8.0, 13),  # 49 frames: 1 + 48 / 4
        (2.0, 8.0, 4),  # 16 frames: 1 + 15 // 4, so 13 of the 16 frames
        (0.125, 8.0, 1),  # one frame is one latent
        (2.0, 24.0, 12),
    ],
)
def test_latent_steps_by_hand(seconds, fps, expected):
    assert latent_steps(seconds, fps=fps) == expected


@given(latents=st.integers(1, 40), compression=st.integers(1, 8))
@settings(deadline=None)
def test_latent_steps_inverts_the_frame_count(latents, compression):
    frames = 1 + compression * (latents - 1)
    assert latent_steps(frames, fps=1.0, temporal_compression=compression) == latents


@given(
    steps=st.integers(1, 60),
    fps=st.sampled_from([4.0, 8.0, 15.0, 24.0]),
    probability=st.floats(0, 1),
    seed=st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=100)
def test_the_length_stays_in_range(steps, fps, probability, seed):
    kept = truncated_length(
        steps, fps=fps, probability=probability, generator=keyed_generator(seed)
    )
    assert min(steps, 3) <= kept <= steps
    if (1 + 4 * (steps - 1)) / fps < 2.0:
        assert kept == steps, "a clip shorter than the minimum stays whole"
    if kept < steps:
        assert max(3, latent_steps(2.0, fps=fps)) <= kept <= latent_steps(6.0, fps=fps)


def test_the_truncated_share_is_the_probability():
    # 49 frames at 8 fps last 6.125 s; a cut leaves at most 6 s, hence 12 of 13 latents.
    found = lengths(13, fps=8.0, probability=0.25, times=8000)
    expected = [0.25 * 8000, 0.75 * 8000]
    assert chisquare([8000 - found[13], found[13]], expected).pvalue > 1e-4


def test_every_length_is_equally_likely():
    # At 8 fps 5 latents are 17 frames, 2.125 s, and 12 are 45 frames, 5.625 s; 4 would be 1.625 s
    # and 13 6.125 s.
    assert lengths_between(2.0, 6.0, fps=8.0) == (5, 12)
    assert lengths_between(2.125, 5.625, fps=8.0) == (5, 12), "both ends included"
    found = lengths(13, fps=8.0, probability=1.0)
    assert set(found) == set(range(5, 13))
    assert chisquare(list(found.values())).pvalue > 1e-4
    found = lengths(9, fps=8.0, probability=1.0)  # 33 frames, 4.125 s: one of five
    assert set(found) == set(range(5, 10))
    assert chisquare(list(found.values())).pvalue > 1e-4


def test_never_and_whole():
    assert set(lengths(13, fps=8.0, probability=0.0, times=200)) == {13}
    assert set(lengths(4, fps=8.0, probability=1.0, times=200)) == {4}  # 13 frames, 1.625 s


def test_few_latents_are_never_kept():
    # At 2 fps two to six seconds are 4 to 12 frames, 1 to 3 latents: raised to 3, or to 2 if asked.
    assert set(lengths(13, fps=2.0, probability=1.0, times=300)) == {3}
    assert min(lengths(13, fps=2.0, probability=1.0, times=300, minimum_latents=2)) == 2
    assert set(lengths(2, fps=0.5, probability=1.0, times=100)) == {2}


def test_every_call_advances_the_generator_alike():
    streams = set()
    for steps, probability in ((13, 0.0), (13, 1.0), (2, 1.0)):
        generator = keyed_generator(6)
        truncated_length(steps, fps=8.0, probability=probability, generator=generator)
        streams.add(torch.rand((), generator=generator).item())
    assert len(streams) == 1


@pytest.mark.parametrize("shape", [(13, 2, 4, 4), (3, 13, 2, 4, 4)])
def test_a_prefix_is_kept(shape):
    latents = torch.randn(shape, generator=keyed_generator(1))
    seen = set()
    for seed in range(20):
        options = {"fps": 8.0, "probability": 0.7}
        kept = truncate(latents, generator=keyed_generator(seed), **options)
        length = truncated_length(13, generator=keyed_generator(seed), **options)
        expected = latents[:length] if len(shape) == 4 else latents[:, :length]
        assert torch.equal(kept, expected)
        seen.add(length)
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": 1.5}, "`probability` must lie in 0..1, got 1.5"),
        ({"fps": 0.0}, "`fps` > 0"),
        ({"fps": math.nan}, "`fps` > 0"),
        ({"min_seconds": 7.0}, "7.0 and 6.0 seconds at 8.0 fps"),
        ({"min_seconds": 0.01}, "one frame <= `min_seconds`"),
        ({"temporal_compression": 0}, "`temporal_compression` >= 1"),
        ({"minimum_latents": 0}, "must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    options = {"fps": 8.0, "probability": 0.5, **changes}
    with pytest.raises(ValueError, match=message):
        truncated_length(13, generator=torch.Generator(), **options)


def test_less_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="less than one frame"):
        latent_steps(0.1, fps=8.0)


@pytest.mark.usefixtures("unchecked")
def test_latents_of_three_axes_are_refused():
    with pytest.raises(ValueError, match=r"got shape \(13, 4, 4\)"):
        truncate(torch.zeros(13, 4, 4), fps=8.0, probability=1.0, generator=torch.Generator())
