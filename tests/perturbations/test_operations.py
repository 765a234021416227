"""Laws of the five perturbations on tensors."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward.perturbations import (
    PERTURBATIONS,
    frame_drop,
    frame_drop_index,
    frame_shuffle,
    frame_shuffle_index,
    noisy_segment,
    noisy_segment_slice,
    patch_swap,
    patch_swap_region,
    slice_pair,
    temporal_slice_swap,
    temporal_slice_swap_index,
)
from gtsvj_reward.random_keys import keyed_generator

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
SEEDS = st.integers(0, 2**40)
every_kind = pytest.mark.parametrize("kind", PERTURBATIONS)


def on_gpu(test):
    """Mark a test that needs a CUDA device."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return pytest.mark.gpu(skip(test))


def clips(batch=2, steps=7, channels=3, height=6, width=8, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, channels, height, width, generator=generator).to(dtype)


def bits(latents):
    """The values as integers: -0.0 and 0.0 differ, equal NaNs do not."""
    sizes = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return latents.contiguous().view(sizes[latents.element_size()])


def test_the_names_are_those_of_the_table():
    assert list(PERTURBATIONS) == [
        "temporal_slice_swap",
        "noisy_segment",
        "frame_shuffle",
        "frame_drop",
        "patch_swap",
    ]


@every_kind
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shape_and_dtype_are_kept_and_the_input_is_not_written_to(kind, dtype):
    latents = clips(dtype=dtype)
    before = latents.clone()
    perturbed = PERTURBATIONS[kind](latents, generator=keyed_generator(1))
    assert perturbed.shape == latents.shape
    assert perturbed.dtype == dtype
    assert torch.equal(bits(latents), bits(before))
    assert perturbed.data_ptr() != latents.data_ptr()


@every_kind
@given(seed=SEEDS, steps=st.integers(3, 13))
@settings(deadline=None, max_examples=25)
def test_every_clip_changes_and_a_seed_repeats(kind, seed, steps):
    latents = clips(batch=3, steps=steps)
    perturbed = PERTURBATIONS[kind](latents, generator=keyed_generator(seed))
    again = PERTURBATIONS[kind](latents, generator=keyed_generator(seed))
    assert torch.equal(perturbed, again)
    assert (perturbed != latents).flatten(1).any(dim=1).all()


@every_kind
def test_the_clips_of_a_batch_get_different_draws(kind):
    # Two copies of one clip: equal draws would give equal results. Some draws coincide by chance,
    # at worst those of frame drop (12 outcomes at T = 7 per size 1, fewer than half coincide).
    latents = clips(batch=1, steps=7).expand(2, -1, -1, -1, -1)
    differing = 0
    for seed in range(100):
        first, second = PERTURBATIONS[kind](latents, generator=keyed_generator(seed))
        differing += not torch.equal(first, second)
    assert differing > 70


@every_kind
def test_two_seeds_differ(kind):
    latents = clips(batch=4, steps=13)
    one = PERTURBATIONS[kind](latents, generator=keyed_generator(1))
    two = PERTURBATIONS[kind](latents, generator=keyed_generator(2))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("operation", "draw_index"),
    [
        (frame_shuffle, frame_shuffle_index),
        (frame_drop, frame_drop_index),
        (temporal_slice_swap, temporal_slice_swap_index),
    ],
)
@given(seed=SEEDS, steps=st.integers(3, 13))
@settings(deadline=None, max_examples=25)
def test_frames_come_from_where_the_index_map_says(operation, draw_index, seed, steps):
    latents = clips(batch=2, steps=steps)
    perturbed = operation(latents, generator=keyed_generator(seed))
    generator = keyed_generator(seed)
    for clip in range(2):
        index = draw_index(steps, generator)
        for t in range(steps):
            assert torch.equal(bits(perturbed[clip, t]), bits(latents[clip, index[t]]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(seed=SEEDS, steps=st.integers(3, 13))
@settings(deadline=None, max_examples=25)
def test_noise_stays_inside_its_slice(dtype, seed, steps):
    latents = clips(batch=1, steps=steps, dtype=dtype)
    latents[:, :, 0, 0, 0] = -0.0  # adding zero noise would turn it into 0.0
    perturbed = noisy_segment(latents, generator=keyed_generator(seed))
    start, end = noisy_segment_slice(steps, keyed_generator(seed))
    clean = torch.ones(steps, dtype=torch.bool)
    clean[start:end] = False
    assert torch.equal(bits(perturbed[0, clean]), bits(latents[0, clean]))
    assert all((perturbed[0, t] != latents[0, t]).any() for t in range(start, end))


@pytest.mark.parametrize("noise_range", [(0.1, 0.5), (2.0, 2.0)])
def test_noise_strength_follows_each_channel(noise_range):
    # Three channels of very different spread and offset; 40 x 40 values per frame and channel give
    # the ratio noise / spread within about 2 % each.
    scale = torch.tensor([0.01, 1.0, 50.0])[:, None, None]
    latents = clips(batch=250, steps=3, height=40, width=40) * scale + 7 * scale
    spread = latents.std(dim=(1, 3, 4), correction=0)
    noise = noisy_segment(latents, generator=keyed_generator(3), noise_range=noise_range) - latents
    noisy = (noise != 0).flatten(2).any(dim=2)
    assert (noisy.sum(dim=1) == 1).all(), "T = 3 leaves room for one noisy step"
    ratio = noise[noisy].std(dim=(2, 3)) / spread
    low, high = noise_range
    assert ratio.min() > low * 0.9
    assert ratio.max() < high * 1.1
    torch.testing.assert_close(ratio.mean().item(), (low + high) / 2, rtol=0.1, atol=0.0)
    if low < high:
        strengths = ratio.mean(dim=1)
        assert strengths.std() > 0.5 * (high - low) / 12**0.5, "each clip draws its own"
        assert (ratio.std(dim=1) / strengths).max() < 0.1, "the channels of a clip share it"


@given(seed=SEEDS, steps=st.integers(3, 13))
@settings(deadline=None, max_examples=40)
def test_patch_swap_exchanges_a_region_of_two_slices(seed, steps):
    latents = clips(batch=1, steps=steps)
    swapped = patch_swap(latents, generator=keyed_generator(seed))
    generator = keyed_generator(seed)
    pair = slice_pair(steps, generator)
    region = patch_swap_region(6, 8, generator)
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    expected = latents.clone()
    for i in range(pair.length):
        one, other = pair.first + i, pair.second + i
        expected[0, one, :, rows, columns] = latents[0, other, :, rows, columns]
        expected[0, other, :, rows, columns] = latents[0, one, :, rows, columns]
    assert torch.equal(bits(swapped), bits(expected))
    back = patch_swap(swapped, generator=keyed_generator(seed))
    assert torch.equal(bits(back), bits(latents)), "the same exchange twice undoes itself"


@given(seed=SEEDS, steps=st.integers(3, 13))
@settings(deadline=None, max_examples=40)
def test_the_printed_formula_leaves_the_second_slice_alone(seed, steps):
    latents = clips(batch=1, steps=steps)
    exchanged = patch_swap(latents, generator=keyed_generator(seed))
    copied = patch_swap(latents, generator=keyed_generator(seed), one_way=True)
    pair = slice_pair(steps, keyed_generator(seed))
    first = torch.zeros(steps, dtype=torch.bool)
    first[pair.first : pair.first + pair.length] = True
    assert torch.equal(bits(copied[0, first]), bits(exchanged[0, first]))
    assert torch.equal(bits(copied[0, ~first]), bits(latents[0, ~first]))


@every_kind
def test_gradient_reaches_every_frame_that_is_read(kind):
    latents = clips(dtype=torch.float64).requires_grad_()
    perturbed = PERTURBATIONS[kind](latents, generator=keyed_generator(5))
    perturbed.sum().backward()
    # The sum reads each value as often as it appears in the output: once per value on average.
    torch.testing.assert_close(latents.grad.sum().item(), float(latents.numel()))
    assert torch.equal(latents.grad, latents.grad.round())


def test_a_constant_channel_gets_no_noise_and_no_nan():
    latents = clips()
    latents[:, :, 1] = 2.0
    latents.requires_grad_()
    perturbed = noisy_segment(latents, generator=keyed_generator(5))
    perturbed.sum().backward()
    assert torch.equal(perturbed[:, :, 1], latents[:, :, 1])
    assert latents.grad.isfinite().all()


def test_draws_do_not_depend_on_dtype():
    # The draws are made in float32 on the CPU, whatever the latents are.
    generator = keyed_generator(9)
    wide = noisy_segment(clips(dtype=torch.float64), generator=generator)
    narrow = noisy_segment(clips(), generator=keyed_generator(9))
    torch.testing.assert_close(wide.float(), narrow, rtol=1e-5, atol=1e-6)


@every_kind
def test_a_short_clip_is_refused(kind):
    message = f"{kind} needs at least 3 latent steps, got T = 2"
    with pytest.raises(ValueError, match=message):
        PERTURBATIONS[kind](clips(steps=2), generator=torch.Generator())
    PERTURBATIONS[kind](clips(steps=3), generator=torch.Generator())


@every_kind
@pytest.mark.usefixtures("unchecked")
def test_a_missing_batch_axis_is_refused(kind):
    with pytest.raises(ValueError, match=r"got shape \(7, 3, 6, 8\); add the batch axis"):
        PERTURBATIONS[kind](clips()[0], generator=torch.Generator())


@every_kind
def test_an_empty_batch_is_refused(kind):
    with pytest.raises(ValueError, match=r"at least one clip, got shape \(0, 7, 3, 6, 8\)"):
        PERTURBATIONS[kind](clips()[:0], generator=torch.Generator())


@pytest.mark.parametrize("noise_range", [(0.0, 0.5), (0.5, 0.1), (0.1, float("inf"))])
def test_bad_noise_ranges_are_refused(noise_range):
    with pytest.raises(ValueError, match="noise_range"):
        noisy_segment(clips(), generator=torch.Generator(), noise_range=noise_range)


@every_kind
def test_the_result_stays_on_the_device_of_the_latents(kind):
    # Tensors of the meta device have no values and refuse to meet those of another device.
    perturbed = PERTURBATIONS[kind](clips().to("meta"), generator=torch.Generator())
    assert perturbed.is_meta
    assert perturbed.shape == clips().shape


@on_gpu
@every_kind
def test_the_result_does_not_depend_on_the_device(kind):
    latents = clips()
    there = PERTURBATIONS[kind](latents.cuda(), generator=keyed_generator(4))
    here = PERTURBATIONS[kind](latents, generator=keyed_generator(4))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here)


@on_gpu
def test_a_generator_on_the_device_is_refused():
    with pytest.raises(ValueError, match="generator on cuda"):
        frame_drop(clips().cuda(), generator=torch.Generator(device="cuda"))
