"""No video, and no group of videos, is both trained on and held out."""

import hashlib
import logging
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from gtsvj_reward.annotations import Rating, Ratings, read_ratings
from gtsvj_reward.latents.content import made_from
from gtsvj_reward.latents.store import LatentFolder, load_clip, save_clip
from gtsvj_reward.training import JudgeArguments, train_discriminator
from gtsvj_reward.training.discriminator.run import generated_folders
from gtsvj_reward.training.preference.data import ClipPair
from gtsvj_reward.training.preference.run import known_as
from gtsvj_reward.training.split_labels import split_labels
from gtsvj_reward.training.splits import (
    check_apart,
    clip_keys,
    connected_groups,
    content_key,
    deal_folds,
    group_names,
    hold_out,
)
from tests.training.clips import write_clips
from tests.training.stages import aspect_args, train_aspects, train_preference
from tests.training.test_discriminator import config


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 10, time=3)


def copied(info, path, **changes):
    """The same latents in another file, whose record says other things."""
    save_clip(path, replace(load_clip(info.path), source_sha256=None, **changes))
    return LatentFolder(path.parent).infos


def split(world, examples, clips, *, count=2, seed=0, **changes):
    args = aspect_args(world, seed=seed, **changes)
    return hold_out(examples, None, clips, count=count, args=args, setting="held_out_x")


def test_content_is_that_of_the_latents_alone(tmp_path):
    infos = write_clips(tmp_path / "a", 2).infos
    (copy,) = copied(infos[0], tmp_path / "b" / "other.safetensors", source="x.mp4", fps=9.0)
    assert content_key(copy) == content_key(infos[0]) != content_key(infos[1])
    assert clip_keys(copy) & clip_keys(infos[0])
    assert not clip_keys(copy) & clip_keys(infos[1])
    clip = load_clip(copy.path)
    save_clip(copy.path, replace(clip, latents=clip.latents + 1))
    assert content_key(copy) != content_key(infos[0]), "an older state of the file was remembered"


def test_content_of_a_large_clip_is_read_at_both_ends(tmp_path):
    (info,) = write_clips(tmp_path / "a", 1, time=65).infos  # 24,960 values; 4,096 are read
    keys = {content_key(info)}
    clip = load_clip(info.path)
    for step in (0, 32, 64):
        changed = clip.latents.clone()
        changed[step] += 1
        save_clip(info.path, replace(clip, latents=changed))
        keys.add(content_key(info))
    assert len(keys) == 4


def test_splits_are_disjoint_complete_and_repeatable(world, clip_folder):
    infos = clip_folder.infos
    train, held_out = split(world, infos, lambda info: [info])
    assert len(held_out) == 2
    assert sorted(info.path for info in train + held_out) == [info.path for info in infos]
    assert split(world, infos, lambda info: [info]) == (train, held_out)
    assert split(world, infos, lambda info: [info], seed=1) != (train, held_out)
    with pytest.raises(ValueError, match=r"cannot hold out any of 1 examples.*`held_out_x`"):
        split(world, infos[:1], lambda info: [info])


def test_groups_are_the_connected_components_of_shared_keys():
    links = [(0, 1), (2, 3), (1, 4), (5, 6), (4, 0), (3, 2)]
    keys = [frozenset(map(str, link)) for link in links]
    assert sorted(map(sorted, connected_groups(keys))) == [[0, 2, 4], [1, 5], [3]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=25),
    st.integers(0, 3),
)
def test_pairs_never_share_a_clip_over_a_split(tmp_path_factory, clip_folder, links, seed):
    infos = clip_folder.infos
    world = tmp_path_factory.getbasetemp()
    pairs = [ClipPair(infos[a], infos[b], 1, str(i)) for i, (a, b) in enumerate(links)]
    keys = [frozenset(map(str, link)) for link in links]
    if len(connected_groups(keys)) == 1:
        with pytest.raises(ValueError, match="connect all of them"):
            split(world, pairs, lambda pair: [pair.first, pair.second], seed=seed)
        return
    train, held_out = split(world, pairs, lambda pair: [pair.first, pair.second], seed=seed)
    sides = [
        {info.path for p in part for info in (p.first, p.second)} for part in (train, held_out)
    ]
    assert not sides[0] & sides[1]
    assert train
    assert held_out
    assert sorted(int(p.row) for p in train + held_out) == list(range(len(pairs)))


def test_pairs_that_share_a_clip_share_a_fold(world, clip_folder):
    infos = clip_folder.infos
    links = [(0, 1), (2, 3), (1, 4), (5, 6), (4, 0), (7, 8)]  # pairs 0, 2 and 4 hang together
    pairs = [ClipPair(infos[a], infos[b], 1, str(i)) for i, (a, b) in enumerate(links)]

    def folds(seed):
        args = aspect_args(world, seed=seed)
        return deal_folds(pairs, lambda pair: [pair.first, pair.second], args)

    found = folds(0)
    assert found[0] == found[2] == found[4]
    assert sorted({found[0], found[1], found[3], found[5]}) == [0, 1, 2, 3]
    assert found == folds(0)
    assert any(folds(seed) != found for seed in range(1, 9))


def test_a_video_under_two_names_stays_on_one_side(world, caplog):
    infos = write_clips(world / "c", 6).infos
    for index in range(6):
        copied(infos[index], world / "c" / f"copy-{index}.safetensors", source=f"copy-{index}.mp4")
    infos = LatentFolder(world / "c").infos
    assert len(infos) == 12
    for seed in range(8):
        with caplog.at_level(logging.WARNING):
            train, held_out = split(world, infos, lambda info: [info], seed=seed)
        check_apart(train, held_out)
        assert len(held_out) == 2
        assert content_key(held_out[0]) == content_key(held_out[1])
    assert "12 clips are 6 videos, some under several names" in caplog.text


def test_segments_of_one_source_stay_on_one_side(world, caplog):
    """Twelve clips a_0, a_1, a_2, b_0, ...: four groups of three."""
    infos = [
        replace(info, source=f"set/{'abcd'[index // 3]}_{index % 3}.mp4")
        for index, info in enumerate(write_clips(world / "c", 12).infos)
    ]
    plain = [split(world, infos, lambda info: [info], seed=seed)[1] for seed in range(4)]
    assert any(len({info.source[4] for info in held_out}) > 1 for held_out in plain)
    for seed in range(4):
        with caplog.at_level(logging.WARNING):
            _, held_out = split(world, infos, lambda info: [info], seed=seed, group_by=r"(.+)_\d+")
        assert len(held_out) == 3
        assert len({info.source[4] for info in held_out}) == 1
    assert "12 clips in 4 groups, 0 on their own" in caplog.text
    with pytest.raises(ValueError, match=r"of the same group as .*Held-out results"):
        check_apart(infos[:2], infos[2:3], r"(.+)_\d+")
    with pytest.raises(ValueError, match=r"matches none of 12 clips, the first is set/a_0\.mp4"):
        split(world, infos, lambda info: [info], group_by=r"scene-\d+")
    with pytest.raises(ValueError, match="connect all of them"):
        split(world, infos, lambda info: [info], group_by="folder")


def test_groups_of_a_label_file_stay_on_one_side(world, clip_folder):
    """Pairs 0 and 1 share no clip but a group, 1 and 2 share a clip."""
    infos = clip_folder.infos
    pairs = [
        ClipPair(infos[a], infos[b], 1, str(i), group)
        for i, (a, b, group) in enumerate([(0, 1, "g"), (2, 3, "g"), (3, 4, None), (5, 6, "h")])
    ]
    clips = lambda pair: (pair.first, pair.second)  # noqa: E731
    args = aspect_args(world)
    for seed in range(6):
        args = aspect_args(world, seed=seed)
        train, held_out = hold_out(
            pairs, None, clips, count=1, args=args, setting="x", group=lambda pair: pair.group
        )
        assert sorted([len(train), len(held_out)]) == [1, 3]
        folds = deal_folds(pairs, clips, args, lambda pair: pair.group)
        assert folds[0] == folds[1] == folds[2] != folds[3]
    assert group_names(pairs, clips, None, lambda pair: pair.group) == ["0", "0", "0", "1"]
    assert group_names(pairs, clips, None) == ["0", "1", "1", "2"]
    with pytest.raises(ValueError, match=r"1 held-out rows are of groups .* the first is 'g'"):
        hold_out(pairs[:1], pairs[1:2], clips, count=1, args=args, setting="x",
                 group=lambda pair: pair.group)  # fmt: skip


def test_a_file_of_ratings_is_split_by_clip(tmp_path, world):
    write_clips(tmp_path / "c", 6)
    (copied_info, *_) = LatentFolder(tmp_path / "c").infos
    copied(copied_info, tmp_path / "c" / "copy.safetensors", source="copy.mp4")
    folder = LatentFolder(tmp_path / "c")
    rows = tuple(
        Rating(row=str(i), video=str(info.source), scores={"x": 1.0}, group="g" if i > 4 else None)
        for i, info in enumerate(folder.infos)
    )
    ratings = Ratings(name="r", rows=rows, aspects=("x",))
    args = aspect_args(world, output_dir=str(tmp_path / "out"), held_out_fraction=0.3)
    files = split_labels(ratings, folder, args)
    assert sum(files.values()) == 7
    parts = [read_ratings(file).rows for file in files]
    assert [len(part) for part in parts] == list(files.values())
    assert sorted(row.row for part in parts for row in part) == sorted(row.row for row in rows)
    sides = {row.video: number for number, part in enumerate(parts) for row in part}
    assert sides["0.mp4"] == sides["copy.mp4"]
    assert len({sides[row.video] for row in rows if row.group}) == 1


def write_negatives(folder, infos, copies=2):
    """What `gtsvj negatives` writes of real clips: other latents, and what they are made from."""
    for info in infos:
        for copy in range(copies):
            clip = load_clip(info.path)
            made = replace(
                clip,
                latents=clip.latents + 1 + copy,
                source=f"{info.source}-{copy}",
                source_sha256=None,
                settings={"made_from": [content_key(info)]},
            )
            save_clip(folder / f"{info.path.stem}-{copy}.safetensors", made)
    return LatentFolder(folder).infos


def test_negatives_of_stage_1_are_on_the_side_of_their_source(tmp_path, caplog):
    real = write_clips(tmp_path / "real", 10, time=3).infos
    write_negatives(tmp_path / "all", real)
    write_clips(tmp_path / "all" / "others", 10, time=3, seed=50)
    for seed in range(5):
        args = config(tmp_path, seed=seed)
        train, held_out = hold_out(real, None, lambda i: [i], count=2, args=args, setting="x")
        made, apart = generated_folders(str(tmp_path / "all"), args, train, held_out)
        check_apart([*train, *made], [*held_out, *apart])
        assert len(made) + len(apart) == 30
        # A fifth of 30 are 6: the four of two held-out clips, and two others.
        assert len(apart) == 6
        origins = {key for info in apart for key in made_from(info)}
        assert origins == {content_key(info) for info in held_out}
    assert "under several names" not in caplog.text


def test_generated_clips_of_nothing_real_are_split_by_themselves(tmp_path):
    real = write_clips(tmp_path / "real", 10, time=3).infos
    others = write_clips(tmp_path / "others", 10, time=3, seed=50).infos
    args = config(tmp_path)
    expected = hold_out(others, None, lambda info: [info], count=2, args=args, setting="x")
    assert generated_folders(str(tmp_path / "others"), args, real[2:], real[:2]) == expected


def test_held_out_clips_that_are_given_take_their_negatives_along(tmp_path):
    real = write_clips(tmp_path / "real", 6, time=3).infos
    negatives = write_negatives(tmp_path / "made", real)
    made, apart = generated_folders(str(tmp_path / "made"), config(tmp_path), real[1:], real[:1])
    assert (len(made), len(apart)) == (10, 2)
    check_apart([*real[1:], *made], [*real[:1], *apart])
    made, apart = generated_folders(str(tmp_path / "made"), config(tmp_path), real, [])
    assert (made, apart) == (negatives, []), "there is none to hold out without its source"


def test_a_judge_is_trained_on_negatives_of_its_real_clips(tmp_path, base):
    write_negatives(tmp_path / "made", write_clips(tmp_path / "real", 10).infos)
    trainer = train_discriminator(
        JudgeArguments(base_model=str(base), head_width=16),
        config(tmp_path, generated=str(tmp_path / "made")),
    )
    assert (len(trainer.train_dataset.generated), len(trainer.eval_dataset.generated)) == (16, 4)


def test_labels_of_a_negative_are_no_labels_of_its_source(tmp_path):
    (info,) = write_clips(tmp_path / "real", 1).infos
    first, second = write_negatives(tmp_path / "made", [info])
    assert clip_keys(first) & clip_keys(second)
    assert clip_keys(first) & clip_keys(info)
    assert not known_as(first) & (known_as(second) | known_as(info))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("real", "held_out_real", "8 held-out clips are trained on as well"),
        ("generated", "held_out_generated", "8 held-out clips are trained on as well"),
        ("real", "generated", "8 clips are given as generated and as real"),
        ("real", "held_out_generated", "8 clips are given as generated and as real"),
    ],
)
def test_folders_of_stage_1_with_the_same_clips_are_refused(tmp_path, base, first, second, message):
    """Generated clips have no source, and copies have other names: content decides."""
    places = ("real", "generated", "held_out_real", "held_out_generated")
    for number, name in enumerate(places):
        for index, info in enumerate(write_clips(tmp_path / name, 8, seed=20 * number).infos):
            copied(info, info.path, source=f"{name}-{index}.mp4")
    shutil.rmtree(tmp_path / second)
    for index, info in enumerate(LatentFolder(tmp_path / first).infos):
        copied(info, tmp_path / second / f"other-{index}.safetensors", source=f"other-{index}.mp4")
    arguments = JudgeArguments(base_model=str(base), head_width=16)
    folders = {name: str(tmp_path / name) for name in places}
    with pytest.raises(ValueError, match=message):
        train_discriminator(arguments, config(tmp_path, **folders))


def test_held_out_labels_of_the_same_videos_are_refused(world):
    """The held-out files name copies, which have other names, and no source."""
    for name in ("rated", "compared"):
        for info in LatentFolder(world / name).infos:
            copied(
                info, world / name / f"copy-{info.path.name}",
                source=f"copy-{info.path.stem}.mp4",
            )  # fmt: skip
    for name in ("ratings", "pairs"):
        header, *rows = (world / f"{name}.csv").read_text().splitlines()
        named = [",".join(f"copy-{c}" if ".mp4" in c else c for c in r.split(",")) for r in rows]
        (world / f"other-{name}.csv").write_text("\n".join([header, *named]) + "\n")
    with pytest.raises(ValueError, match="16 held-out clips are trained on as well"):
        train_aspects(world, held_out_ratings=str(world / "other-ratings.csv"))
    train_aspects(world)
    with pytest.raises(ValueError, match="24 held-out clips are trained on as well"):
        train_preference(world, held_out_comparisons=str(world / "other-pairs.csv"))


def test_reuse_is_known_by_content(world, caplog):
    """Stage 3 compares copies of clips that stage 2 has seen the labels of."""
    train_aspects(world)
    for info in LatentFolder(world / "rated").infos:
        copied(info, world / "copies" / info.path.name, source=info.path.stem + ".mp4")
    rows = [f"{i:03d}.mp4,{i + 1:03d}.mp4,1" for i in range(0, 16, 2)]
    (world / "same.csv").write_text("\n".join(["video_a,video_b,label", *rows]) + "\n")
    with caplog.at_level(logging.WARNING):
        train_preference(world, comparisons=str(world / "same.csv"), latents=str(world / "copies"))
    assert "6 of 6 training pairs have clips" in caplog.text


def test_hashing_reads_a_part_of_each_file_once(world, clip_folder, monkeypatch):
    infos = write_clips(world / "c", 3, time=65).infos
    read = []
    monkeypatch.setattr(
        "gtsvj_reward.latents.content.sha256",
        lambda raw: read.append(len(raw)) or hashlib.sha256(raw),
    )
    for _ in range(3):
        split(world, infos, lambda info: [info], count=1)
    assert len(read) == 3
    assert all(size < 5 * 4096 for size in read)
