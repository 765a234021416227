import pytest
import torch

from gtsvj_reward.judge import Aspect
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.training.aspects.data import RatedClip, RatedClips, normalised_targets
from gtsvj_reward.training.data import Truncation
from gtsvj_reward.training.preference.data import ClipPair, ClipPairs
from tests.tiny import ASPECTS
from tests.training.clips import write_clips

NEVER = Truncation(0.0)
ALWAYS = Truncation(1.0, 0.8, 3.0)


def rated(infos, **scores):
    return [RatedClip(info, scores, str(index)) for index, info in enumerate(infos)]


def test_targets_are_scaled_to_the_range_of_their_aspect(tmp_path):
    infos = write_clips(tmp_path / "c", 2).infos
    clips = [
        RatedClip(infos[0], {"clear": 1.0, "focus": 3.0}, "a"),
        RatedClip(infos[1], {"clear": 4.0, "movement smoothness": 1.0, "other": 99.0}, "b"),
    ]
    nan = float("nan")
    expected = torch.tensor([[0.0, 1.0, nan], [0.75, nan, 0.25]])
    torch.testing.assert_close(normalised_targets(clips, ASPECTS), expected, equal_nan=True)


def test_labels_outside_their_scale_are_named(tmp_path):
    infos = write_clips(tmp_path / "c", 2).infos
    with pytest.raises(ValueError, match=r"2 labels lie outside.*row 0: clear 0.*clear 1\.\.5"):
        normalised_targets(rated(infos, clear=0.0), ASPECTS[:1])
    with pytest.raises(ValueError, match=r"no clip has a label for \['focus'\]"):
        normalised_targets(rated(infos, clear=2.0), ASPECTS[:2])
    with pytest.raises(ValueError, match="1 of 2 clips have no label of any aspect"):
        RatedClips(
            [*rated(infos[:1], clear=2.0), *rated(infos[1:], other=1.0)],
            ASPECTS[:1],
            truncation=NEVER,
            seed=0,
        )


def test_examples_depend_on_their_key_alone(tmp_path):
    infos = write_clips(tmp_path / "c", 4, time=9).infos
    data = RatedClips(rated(infos, clear=2.0), ASPECTS[:1], truncation=ALWAYS, seed=3)
    again = RatedClips(rated(infos, clear=2.0), ASPECTS[:1], truncation=ALWAYS, seed=3)
    lengths = [len(data[key].latents) for key in range(16)]
    assert lengths == [len(again[key].latents) for key in reversed(range(16))][::-1]
    assert len(set(lengths)) > 1
    for key, length in enumerate(lengths):
        whole = load_clip(infos[key % 4].path).latents
        assert torch.equal(data[key].latents, whole[:length])  # a prefix
        assert 3 <= length < 9


def test_both_sides_of_a_pair_are_cut_to_the_same_duration(tmp_path):
    same = write_clips(tmp_path / "a", 2, time=9, fps=8.0).infos
    fast = write_clips(tmp_path / "b", 1, time=17, fps=16.0).infos[0]
    pairs = ClipPairs(
        [ClipPair(same[0], same[1], 1, "x"), ClipPair(same[0], fast, -1, "y")],
        truncation=ALWAYS,
        seed=0,
    )
    cuts = set()
    for epoch in range(12):
        example = pairs[2 * epoch]
        assert len(example.first) == len(example.second) < 9
        cuts.add(len(example.first))
        example = pairs[2 * epoch + 1]
        # 4 (n - 1) + 1 frames at 8 per second last as long as twice as many at 16
        seconds = (4 * (len(example.first) - 1) + 1) / 8
        assert (4 * (len(example.second) - 1) + 1) / 16 == pytest.approx(seconds, abs=4 / 16)
        assert example.pair.label == -1
    assert len(cuts) > 1
    uncut = ClipPairs([ClipPair(same[0], fast, 0, "y")], truncation=NEVER, seed=0)[0]
    assert (len(uncut.first), len(uncut.second)) == (9, 17)


def test_truncation_of_pairs_happens_as_often_as_asked(tmp_path):
    """0.2 of 400 draws: 80, with a standard deviation of 8."""
    infos = write_clips(tmp_path / "a", 2, time=9).infos
    truncation = Truncation(0.2, 0.8, 1.2)
    pairs = ClipPairs([ClipPair(*infos, 1, "x")], truncation=truncation, seed=1)
    cut = sum(len(pairs[key].first) < 9 for key in range(400))
    assert 80 - 32 <= cut <= 80 + 32


def test_aspect_without_a_range_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        Aspect(name="x", low=3, high=3)
