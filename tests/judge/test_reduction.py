"""Judges that look at part of a clip: pooled latents, every k-th frame."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.judge import CheckpointError, Geometry, load_judge, save_judge
from gtsvj_reward.judge.config_format import FORMAT_VERSION
from gtsvj_reward.judge.reduction import reduce_latents
from gtsvj_reward.reward import GeometryError
from tests.backbones.family_cogvideox import tiny_transformer
from tests.backbones.test_families import every_family, judge_of, latents_of
from tests.tiny import clips, tiny_judge

REDUCED = {"latent_pooling": 2, "temporal_stride": 2}


def eighths(family, batch=2):
    """Latents whose sums of four are exact, so that the order of adding does not matter."""
    return (latents_of(family, batch) * 8).round() / 8


def by_hand(latents, patch_size):
    """Every second frame, means over 2x2 latents, after cutting what fills no patch."""
    kept = latents[:, ::2]
    edge = 2 * patch_size
    for axis in (3, 4):
        size = kept.shape[axis]
        kept = kept.narrow(axis, size % edge // 2, size - size % edge)
    corners = [kept[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return sum(corners) / 4


@every_family
def test_the_backbone_sees_the_unmodified_models_tokens_of_the_reduced_clip(family):
    model, latents = family.transformer(0), eighths(family)
    judge = judge_of(family, model, moved=False, **REDUCED)
    seen = by_hand(latents, judge.backbone.patch_size)
    assert seen.shape[1] == -(-latents.shape[1] // 2)
    hidden = family.hidden(model, seen, family.depths[-1], 0.0, family.null_text(2))
    steps, tokens = family.tokens((seen.shape[1], *seen.shape[3:]))
    if family.name == "cogvideox-1.5":
        assert steps == 1
    scores = judge(latents).scores
    assert torch.equal(scores, -judge.head(hidden.unflatten(1, (steps, tokens))))
    assert scores.std() > 1e-3, "scores are all alike: the test proves nothing"


@every_family
def test_scores_do_not_depend_on_the_batch(family):
    judge, latents = judge_of(family, **REDUCED), latents_of(family, 3)
    alone = torch.cat([judge(clip[None]).scores for clip in latents])
    torch.testing.assert_close(judge(latents).scores, alone, rtol=0, atol=1e-5)
    assert alone.std() > 1e-3, "scores are all alike: the test proves nothing"


@every_family
def test_gradients_equal_central_differences_and_are_zero_between_the_frames_seen(family):
    judge = judge_of(family, **REDUCED).double()
    latents = latents_of(family, dtype=torch.float64).requires_grad_()
    judge(latents).scores.mean(1).sum().backward()
    assert latents.grad[:, 1::2].abs().max() == 0
    assert latents.grad[:, ::2].abs().amax(dim=(2, 3, 4)).min() > 0
    direction = latents_of(family, seed=9, dtype=torch.float64)
    step = 1e-3  # smaller ones drown in the float32 roundings
    with torch.no_grad():
        up, down = (judge(latents + s * step * direction).scores.mean(1).sum() for s in (1, -1))
    expected = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / (2 * step), expected, rtol=1e-3, atol=1e-6)


@every_family
def test_checkpoints_of_reduced_judges_load_bitwise(family, tmp_path):
    family.transformer(0).save_pretrained(tmp_path / "base")
    judge = judge_of(family, base_model=str(tmp_path / "base"), **REDUCED)
    save_judge(judge, tmp_path / "judge")
    loaded = load_judge(tmp_path / "judge")
    assert loaded.config == judge.config
    latents = latents_of(family)
    assert torch.equal(loaded(latents).scores, judge(latents).scores)
    whole = judge_of(family, base_model=str(tmp_path / "base"))
    assert whole.config.base_fingerprint == judge.config.base_fingerprint
    assert whole(latents).scores.shape != judge(latents).scores.shape


@every_family
def test_raw_is_the_mean_of_the_trajectory_over_the_steps_seen(family):
    judge = judge_of(family, **REDUCED)
    latents = latents_of(family)
    out = GTSVJReward(judge).details(latents, normalize=False)
    frames = -(-latents.shape[1] // 2)
    for raw, steps in zip(out.raw, out.trajectory, strict=True):
        assert len(steps) == judge.backbone.steps(frames)
        torch.testing.assert_close(steps.mean(), raw)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_pooling": 0}, "`latent_pooling` must be >= 1, got 0"),
        ({"temporal_stride": -1}, "`temporal_stride` must be >= 1, got -1"),
    ],
)
def test_bad_reductions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_judge(**fields)


def test_the_remainder_is_cut_off_in_the_middle_of_both_sides():
    """Seven columns and patches of 2x2 squares of two latents: column 1 to 4 is seen, by hand."""
    latents = torch.zeros(1, 3, 1, 4, 7)
    latents[..., :] = torch.tensor([100.0, 1, 3, 5, 9, 100, 100])
    seen = reduce_latents(latents, latent_pooling=2, temporal_stride=1, patch_size=2)
    assert seen.shape == (1, 3, 1, 2, 2)
    assert torch.equal(seen[0, 0, 0], torch.tensor([[2.0, 7.0], [2.0, 7.0]]))


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (REDUCED, (2, 8, 8), "2 latent frames is too short .* one in 2 .* at least 3 are needed"),
        ({"latent_pooling": 3}, (3, 5, 8), r"5x8 are too small .* at least 6x6 are needed"),
        (REDUCED, (8, 8), r"expected latents \(batch, time.*got shape \(4, 8, 8\)"),
    ],
)
@pytest.mark.parametrize("kind", ["2b"])
def test_clips_of_which_too_little_is_left_are_refused(kind, options, shape, message):
    config = tiny_judge(kind, **options).config
    time, *sides = shape
    latents = torch.zeros(4, *shape) if len(shape) == 2 else torch.zeros(1, time, 4, *sides)
    with pytest.raises(ValueError, match=message):
        reduce_latents(
            latents,
            latent_pooling=config.latent_pooling,
            temporal_stride=config.temporal_stride,
            patch_size=2,
        )


def test_without_pooling_what_cannot_be_patched_is_refused_as_ever():
    with pytest.raises(ValueError, match="multiples of the patch size"):
        tiny_judge(temporal_stride=2)(clips(1, 5, 8, 11))
    assert tiny_judge(latent_pooling=2)(clips(1, 5, 8, 11)).scores.isfinite().all()


def test_the_trained_geometry_is_that_of_the_clip_and_not_of_what_is_seen():
    geometry = Geometry(latent_frames=(3, 5), height=(8, 8), width=(12, 12), fps=(8.0, 8.0))
    reward = GTSVJReward(tiny_judge(geometry=geometry, **REDUCED))
    assert reward(clips(2, 5)).isfinite().all()
    with pytest.raises(GeometryError, match=r"latent frames 6 outside 3\.\.5"):
        reward(clips(2, 6))
    with pytest.raises(GeometryError, match=r"latent height 16 outside 8\.\.8"):
        reward(clips(2, 5, 16, 12))
    with pytest.raises(GeometryError, match=r"latent height 4 outside 8\.\.8"):
        reward(clips(2, 5, 4, 12))


LATER = {
    2: ("latent_pooling", "temporal_stride"),
    3: ("readout", "taps", "has_energy", "penalties", "projection_seed"),
    4: ("surprise", "noise_levels", "noise_seed"),
    5: ("latent_statistics",),
    6: ("prompt_level", "prompt_dropout"),
}
"""Format version -> the fields that the next one added."""


@pytest.mark.parametrize("version", LATER)
def test_checkpoints_of_earlier_formats_load_as_judges_that_see_everything(tmp_path, version):
    judge = tiny_judge()
    save_judge(judge, tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    assert values["format_version"] == FORMAT_VERSION
    for name in [name for before, names in LATER.items() if before >= version for name in names]:
        del values[name]
    file.write_text(json.dumps({**values, "format_version": version}))
    loaded = load_judge(tmp_path, backbone=tiny_transformer("2b"))
    assert loaded.config == judge.config
    assert torch.equal(loaded.energies(clips()), judge.energies(clips()))


def test_the_card_says_what_is_not_seen(tmp_path):
    save_judge(tiny_judge(**REDUCED), tmp_path / "reduced")
    card = (tmp_path / "reduced" / "README.md").read_text()
    assert ("| input | one latent frame in 2, from the first on, means of 2x2 latents |") in card
    for part in ("they get no gradient", "fine detail is lost"):
        assert part in card
    save_judge(tiny_judge(), tmp_path / "whole")
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "| input | every latent frame |" in card
    assert "no gradient" not in card


def test_judges_with_a_shortened_null_text_are_refused_by_name(tmp_path):
    """An option of earlier releases; checkpoints that never used it have it as null."""
    judge = tiny_judge()
    save_judge(judge, tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "text_tokens": None}))
    assert load_judge(tmp_path, backbone=tiny_transformer("2b")).config == judge.config
    file.write_text(json.dumps({**values, "text_tokens": 2}))
    with pytest.raises(CheckpointError, match="`text_tokens` is set"):
        load_judge(tmp_path, backbone=tiny_transformer("2b"))
