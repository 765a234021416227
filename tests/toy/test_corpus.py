import csv

import pytest
import torch

from gtsvj_reward.annotations import read_comparisons, read_ratings
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.latents.store import LatentFolder, load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import (
    SEEN,
    UNSEEN,
    ClipSpec,
    draw_severities,
    encode_specs,
    random_specs,
    write_comparisons,
    write_ratings,
)
from gtsvj_reward.toy.degradations import FAULTS
from gtsvj_reward.toy.raters import ASPECTS, utility
from gtsvj_reward.toy.world import draw_scene, render


def test_seen_and_unseen_faults_share_out_all_and_each_aspect_has_a_seen_one():
    assert sorted((*SEEN, *UNSEEN)) == sorted(FAULTS)
    for faults in ASPECTS.values():
        assert set(faults) & set(SEEN)


def test_severities_are_of_the_kinds_asked_for_and_none_to_three_of_them():
    drawn = [draw_severities(keyed_generator(1, index), SEEN) for index in range(500)]
    assert {len(row) for row in drawn} == {0, 1, 2, 3}
    assert {name for row in drawn for name in row} == set(SEEN)
    assert all(0.15 <= value <= 1 for row in drawn for value in row.values())


def test_a_spec_gives_its_scene_with_its_faults():
    clean = ClipSpec("a", (5, 1), {})
    assert torch.equal(clean.draw(), render(draw_scene(5, 1)))
    noisy = ClipSpec("a", (5, 1), {"noise": 0.5})
    assert torch.equal(noisy.draw(), noisy.draw())
    assert not torch.equal(noisy.draw(), clean.draw())
    assert not torch.equal(noisy.draw(), ClipSpec("b", (5, 1), {"noise": 0.5}).draw())


@pytest.fixture(scope="module")
def codec():
    return load_vae("gtsvj-demo-codec")


def test_encoding_writes_latent_clips_and_goes_on_where_it_was(tmp_path, codec):
    specs = random_specs("clip", 6, 3, SEEN, frames=9)
    encode_specs(specs[:1], codec, tmp_path)
    before = (tmp_path / "clip-00000.safetensors").stat().st_mtime_ns
    encode_specs(specs, codec, tmp_path, batch=2)
    assert (tmp_path / "clip-00000.safetensors").stat().st_mtime_ns == before
    folder = LatentFolder(tmp_path)
    assert len(folder) == 3
    assert folder.infos[0].shape == (3, 16, 8, 8)
    assert len({info.source_sha256 for info in folder.infos}) == 3
    for spec, clip in zip(specs, folder, strict=True):
        assert clip.settings == {"scene": [6, int(spec.name[-1])], "severities": spec.severities}
        assert clip.num_frames == 9
    alone = tmp_path / "alone"
    encode_specs([specs[2]], codec, alone)
    again = load_clip(alone / "clip-00002.safetensors").latents
    assert (again - folder[2].latents).abs().max() < 1e-4


def test_labels_are_files_that_the_readers_of_the_package_take(tmp_path):
    specs = random_specs("clip", 7, 120, SEEN)
    write_ratings(specs, tmp_path / "ratings.csv", 0)
    ratings = read_ratings(tmp_path / "ratings.csv")
    assert [row.video for row in ratings.rows] == [spec.name for spec in specs]
    assert set(ratings.rows[0].scores) == set(ASPECTS)
    pairs = list(zip(specs[::2], specs[1::2], strict=True))
    gaps = write_comparisons(pairs, tmp_path / "pairs.csv", 0)
    comparisons = read_comparisons(tmp_path / "pairs.csv")
    assert len(comparisons.rows) == 60
    for (first, second), gap in zip(pairs, gaps, strict=True):
        assert gap == pytest.approx(utility(first.severities) - utility(second.severities))
    with (tmp_path / "pairs.csv").open() as file:
        labels = [int(row["label"]) for row in csv.DictReader(file)]
    clear = [(label, gap) for label, gap in zip(labels, gaps, strict=True) if abs(gap) > 3]
    assert len(clear) > 4
    assert all(label == (1 if gap > 0 else -1) for label, gap in clear)
