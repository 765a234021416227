"""Moments: against an obvious loop, exact trajectories, gradients, clips that are too small."""

import pytest
import torch

from gtsvj_reward.judge import moments
from gtsvj_reward.judge.moments import (
    MOMENTS,
    SMOOTHNESS,
    block_moments,
    check_taps,
    default_taps,
    latent_moments,
    shared_by_steps,
    step_moments,
)


def soft(value: torch.Tensor) -> torch.Tensor:
    return torch.sqrt(value**2 + SMOOTHNESS**2)


def slow_moments(clip: torch.Tensor) -> torch.Tensor:
    """The definition, element by element, of one clip (step, row, column, dim)."""
    steps, rows, columns, dim = clip.shape
    means = clip.reshape(steps, -1, dim).mean(1)
    table = []
    for s in range(steps):
        tokens = clip[s].reshape(-1, dim)
        deviation = torch.sqrt(((tokens - tokens.mean(0)) ** 2).mean(0) + SMOOTHNESS**2)
        firsts = [
            soft(clip[b] - clip[b - 1]).reshape(-1, dim).mean(0)
            for b in range(1, steps)
            if s in (b - 1, b)
        ]
        seconds = [
            soft(clip[b + 1] - 2 * clip[b] + clip[b - 1]).reshape(-1, dim).mean(0)
            for b in range(1, steps - 1)
            if s in (b - 1, b, b + 1)
        ]
        right = [
            soft(clip[s, r, c + 1] - clip[s, r, c]) for r in range(rows) for c in range(columns - 1)
        ]
        below = [
            soft(clip[s, r + 1, c] - clip[s, r, c]) for r in range(rows - 1) for c in range(columns)
        ]
        parts = [means[s], deviation, soft(means[s] - means.mean(0))]
        parts += [torch.stack(each).mean(0) for each in (firsts, seconds, right, below)]
        table.append(torch.cat(parts))
    return torch.stack(table)


@pytest.mark.parametrize("shape", [(3, 2, 2, 4), (5, 3, 4, 2)])
def test_moments_are_the_definition(shape):
    clips = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    expected = torch.stack([slow_moments(clip) for clip in clips])
    torch.testing.assert_close(step_moments(clips), expected)
    assert expected.shape[2] == len(MOMENTS) * shape[3]


def test_every_step_has_a_share_of_the_differences_that_touch_it():
    # Four steps, so three first differences 1, 3, 8: ends see one, the others two of them.
    links = torch.tensor([[[1.0], [3.0], [8.0]]])
    assert shared_by_steps(links, 4).flatten().tolist() == [1.0, 2.0, 5.5, 8.0]
    # Two second differences 2, 6 of the same steps: 0 and 3 see one, 1 and 2 both.
    links = torch.tensor([[[2.0], [6.0]]])
    assert shared_by_steps(links, 4).flatten().tolist() == [2.0, 4.0, 4.0, 6.0]


def test_a_still_clip_has_no_movement_and_a_moving_one_has():
    generator = torch.Generator().manual_seed(1)
    still = torch.randn(1, 1, 3, 3, 4, generator=generator).expand(-1, 4, -1, -1, -1)
    movement = slice(2 * 4, 5 * 4)  # from_clip, first and second difference
    floor = torch.full((1, 4, 12), SMOOTHNESS)
    torch.testing.assert_close(step_moments(still)[:, :, movement], floor)
    moving = still + torch.arange(4.0)[None, :, None, None, None]
    assert (step_moments(moving)[:, :, 3 * 4 : 4 * 4] > 0.9).all()


def test_block_moments_normalise_each_token():
    tokens = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    moments = block_moments(tokens, 2, 3)
    torch.testing.assert_close(block_moments(5 * tokens + 1, 2, 3), moments, rtol=1e-4, atol=1e-5)
    assert moments.std() > 0.1, "moments are all alike: the test proves nothing"


def test_latent_moments_average_the_frames_of_a_step():
    latents = torch.randn(1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    per_frame = latent_moments(latents, [0, 1, 2, 3])
    grouped = latent_moments(latents, [0, 0, 1, 1])
    torch.testing.assert_close(grouped, per_frame.unflatten(1, (2, 2)).mean(2))


@pytest.mark.parametrize(
    "read", [lambda x: block_moments(x, 2, 3), lambda x: latent_moments(x[:, :, None], [0, 1, 1])]
)
def test_moments_leave_mixed_precision_to_the_backbone(read):
    tokens = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = read(tokens)
    assert torch.equal(mixed, read(tokens))


def test_gradients_are_those_of_differences():
    tokens = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(4)).double()
    tokens.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: block_moments(x, 2, 2).mean(1), tokens, atol=1e-6)


def test_a_still_clip_has_a_finite_gradient():
    tokens = torch.ones(1, 3, 2, 2, 4, requires_grad=True)
    step_moments(tokens).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 1, 4), (3, 4, 1)])
def test_clips_without_differences_are_refused(shape):
    with pytest.raises(ValueError, match=r"at least 3 steps of 2x2 tokens, this clip has"):
        step_moments(torch.zeros(1, *shape, 8))


def test_default_taps_spread_over_the_depth():
    assert default_taps(30) == [0, 10, 20, 30]
    assert default_taps(6) == [0, 2, 4, 6]
    assert default_taps(2) == [0, 1, 2]
    assert default_taps(1) == [0, 1]


@pytest.mark.parametrize("taps", [(), (0, 0), (2, 1), (-1, 2), (7,)])
def test_taps_outside_the_depth_are_refused(taps):
    with pytest.raises(ValueError, match="`taps` must rise within 0"):
        check_taps(taps, 6)


def test_channels_in_parts_have_the_moments_and_gradients_of_all_at_once(monkeypatch):
    tokens = torch.randn(2, 4, 6, 10, dtype=torch.float64)
    weights = torch.randn(70, dtype=torch.float64)
    found = []
    for channels in (10, 4):
        monkeypatch.setattr(moments, "CHANNELS_AT_ONCE", channels)
        given = tokens.clone().requires_grad_()
        out = block_moments(given, 2, 3)
        (out @ weights).sum().backward()
        found.append((out.detach(), given.grad))
    torch.testing.assert_close(found[1], found[0])
    assert found[0][1].abs().max() > 0.01
