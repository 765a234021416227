import pytest
import torch

from gtsvj_reward.perturbations import GENERATED, PerturbationSampler
from gtsvj_reward.training.data import EpochKeys, Truncation, same_duration, trained_geometry
from gtsvj_reward.training.discriminator.data import ContrastivePairs, RealAndGenerated, collate
from tests.training.clips import write_clips


def pairs_of(tmp_path, *, generated=4, sampler=None, probability=0.0, seed=0):
    """A data set over ten real and some generated clips."""
    real = write_clips(tmp_path / "real", 10)
    fake = write_clips(tmp_path / "fake", generated, time=5, seed=90).infos if generated else []
    return ContrastivePairs(
        RealAndGenerated(real.infos, fake),
        sampler=sampler or PerturbationSampler(),
        truncation=Truncation(probability, 0.5, 6.0),
        seed=seed,
    )


def test_a_pair_depends_on_seed_epoch_and_index_alone(tmp_path):
    pairs = pairs_of(tmp_path, probability=0.5)
    forwards = [pairs[key] for key in range(30)]
    for key in reversed(range(30)):
        again = pairs[key]
        assert again.kind == forwards[key].kind
        assert torch.equal(again.positive, forwards[key].positive)
        assert torch.equal(again.negative, forwards[key].negative)
    other = pairs_of(tmp_path, probability=0.5, seed=1)
    assert any(other[key].kind != forwards[key].kind for key in range(30))
    assert any(forwards[key].kind != forwards[key + 10].kind for key in range(10))


def test_real_anchors_are_the_clips_and_negatives_are_not(tmp_path):
    pairs = pairs_of(tmp_path)
    real = [pair.positive for pair in (pairs[key] for key in range(10))]
    kinds = set()
    for key in range(200):
        pair = pairs[key]
        kinds.add(pair.kind)
        assert pair.anchor == "real"
        assert torch.equal(pair.positive, real[key % 10])
        if pair.kind == GENERATED:
            assert pair.negative.shape[0] == 5
        else:
            assert pair.negative.shape == pair.positive.shape
            assert not torch.equal(pair.negative, pair.positive)
    assert kinds == set(PerturbationSampler().real)


def test_without_generated_clips_no_generated_negative_is_drawn(tmp_path):
    pairs = pairs_of(tmp_path, generated=0)
    assert GENERATED not in {pairs[key].kind for key in range(200)}


def test_generated_anchors_are_perturbed_generated_clips(tmp_path):
    pairs = pairs_of(tmp_path, sampler=PerturbationSampler(real_anchor_probability=0.0))
    for key in range(40):
        pair = pairs[key]
        assert pair.anchor == "generated"
        assert pair.kind != GENERATED
        assert pair.positive.shape[0] == pair.negative.shape[0] == 5


def test_pairs_are_cut_to_prefixes_before_they_are_perturbed(tmp_path):
    whole, cut = pairs_of(tmp_path), pairs_of(tmp_path, probability=1.0)
    lengths = set()
    for key in range(60):
        pair = cut[key]
        steps = len(pair.positive)
        lengths.add(steps)
        assert torch.equal(pair.positive, whole[key].positive[:steps])
        if pair.kind != GENERATED:
            assert len(pair.negative) == steps
        else:
            assert len(pair.negative) <= steps
    assert lengths == {3, 4, 5, 6, 7}, "25 frames, the whole clip, are one of them"


def test_frames_beyond_the_cut_are_in_no_negative(tmp_path):
    """A clip that is perturbed first and cut then holds frames of its cut part."""
    sampler = PerturbationSampler(real={"frame_shuffle": 1.0})
    pairs = pairs_of(tmp_path, sampler=sampler, probability=1.0)
    shorter = 0
    for key in range(40):
        pair = pairs[key]
        shorter += len(pair.positive) < 7
        frames = [frame.flatten().tolist() for frame in pair.positive]
        shuffled = [frame.flatten().tolist() for frame in pair.negative]
        assert sorted(shuffled) == sorted(frames)
        assert shuffled != frames
    assert shorter > 20, "hardly any was cut: the test proves nothing"


def test_generated_negatives_last_as_long_as_their_anchor(tmp_path):
    real = write_clips(tmp_path / "real", 1, time=7, fps=8.0).infos[0]
    fast = write_clips(tmp_path / "fast", 1, time=9, fps=16.0).infos[0]
    # 4 latents are 13 frames, 1.625 s; at 16 fps 26 frames: 1 + floor(25 / 4) = 7 latents.
    assert same_duration(real, 4, fast) == 7
    assert same_duration(fast, 3, real) == 3  # 9 frames at 16 fps are 2 latents; at least 3


@pytest.mark.parametrize("length", [1, 7, 10])
def test_keys_cover_each_epoch_once_in_an_order_of_their_own(length):
    seen = []
    for epoch in (0, 1, 2, 1):
        seen.append(list(EpochKeys(length, 3, lambda epoch=epoch: epoch)))
        assert sorted(seen[-1]) == list(range(epoch * length, (epoch + 1) * length))
    assert seen[1] == seen[3]
    if length > 1:
        assert [key % length for key in seen[0]] != [key % length for key in seen[1]]


def test_collate_keeps_pairs_together(tmp_path):
    pairs = [pairs_of(tmp_path)[key] for key in (3, 1)]
    batch = collate(pairs)
    assert batch["kind"] == [pair.kind for pair in pairs]
    assert all(torch.equal(a, b.positive) for a, b in zip(batch["positive"], pairs, strict=True))


def test_short_clips_are_named(tmp_path):
    short = write_clips(tmp_path / "short", 2, time=2)
    with pytest.raises(ValueError, match=r"2 of 2 clips have fewer than 3 .*00.safetensors with 2"):
        ContrastivePairs(
            RealAndGenerated(short.infos),
            sampler=PerturbationSampler(),
            truncation=Truncation(),
            seed=0,
        )
    with pytest.raises(ValueError, match="no real clips"):
        ContrastivePairs(
            RealAndGenerated([]), sampler=PerturbationSampler(), truncation=Truncation(), seed=0
        )


def test_trained_geometry_counts_truncated_clips(tmp_path):
    infos = (
        write_clips(tmp_path / "a", 2, time=7).infos + write_clips(tmp_path / "b", 1, time=9).infos
    )
    whole = trained_geometry(infos, Truncation(0.0))
    assert whole.latent_frames == (7, 9)
    assert (whole.height, whole.width, whole.fps) == ((8, 8), (12, 12), (8.0, 8.0))
    # 2 s at 8 fps are 16 frames, which 4 latents (13 frames) do not fill and 5 (17 frames) do.
    assert trained_geometry(infos, Truncation(0.25)).latent_frames == (5, 9)
