"""Folders of videos become latent files, whatever happens in between."""

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from gtsvj_reward.latents import (
    EncodeMismatchError,
    LatentFileError,
    LatentFolder,
    LatentSpace,
    encode_folder,
    load_clip,
    read_video,
    write_video,
)
from gtsvj_reward.locks import LOCK_FILE, FolderInUseError, folder_lock
from tests.latents.tiny import make_vae, moving_frames
from tests.ranks import on_unix, run_apart
from tests.test_files import full_disk

NAMES = ["a/x.mp4", "b/x.gif", "b/x.mp4", "b/y.mp4", "shot"]
READING = {"fps": 5, "height": 16, "width": 24, "num_frames": 5}


def encode(videos, out, vae, space, **changes):
    options = {**READING, "frames_fps": 10, "progress": False, **changes}
    return encode_folder(videos, out, vae=vae, space=space, **options)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def relative(paths, videos):
    return [path.relative_to(videos).as_posix() for path in paths]


def test_each_video_becomes_a_file(videos, tmp_path, vae, space):
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == NAMES
    assert report.already_done == report.unreadable == []
    assert sorted(contents(tmp_path / "out")) == [f"{name}.safetensors" for name in NAMES]
    clips = LatentFolder(tmp_path / "out")
    assert clips.space == space
    assert [clip.source for clip in clips] == NAMES
    for clip in clips:
        frames_fps = 10 if clip.source == "shot" else None
        video = read_video(videos / clip.source, frames_fps=frames_fps, **READING)
        with torch.no_grad():
            assert torch.equal(clip.latents, space.encode(video.batch(), vae)[0])
        assert (clip.fps, clip.num_frames) == (5, 5)
        assert clip.settings["height"] == 16
    assert len({clip.source_sha256 for clip in clips}) == 5


def test_a_second_run_does_nothing(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space)
    before = contents(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    report = encode(videos, tmp_path / "out", vae, space)
    assert report.encoded == []
    assert relative(report.already_done, videos) == NAMES
    assert contents(tmp_path / "out") == before
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_shards_share_the_work(videos, tmp_path, vae, space):
    reports = [
        encode(videos, tmp_path / "out", vae, space, process_index=i, num_processes=2)
        for i in range(2)
    ]
    assert relative(reports[0].encoded, videos) == NAMES[::2]
    assert relative(reports[1].encoded, videos) == NAMES[1::2]
    encode(videos, tmp_path / "alone", vae, space)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"0\.\.1, got 2"):
        encode(videos, tmp_path / "out", vae, space, process_index=2, num_processes=2)


def test_unreadable_videos_are_listed_and_the_rest_goes_on(videos, tmp_path, vae, space):
    (videos / "a" / "broken.mp4").write_bytes(b"nothing")
    write_video(videos / "b" / "short.mp4", moving_frames(7), fps=10)
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == NAMES
    assert [path.name for path, _ in report.unreadable] == ["broken.mp4"]
    assert [path.name for path, _ in report.too_short] == ["short.mp4"]
    (row,) = json.loads((tmp_path / "out" / "unreadable.json").read_text())
    assert row["path"] == "a/broken.mp4"
    assert "not a video" in row["reason"]
    (row,) = json.loads((tmp_path / "out" / "too_short.json").read_text())
    assert row["path"] == "b/short.mp4"
    # Frames 0, 2, 4, 6 at 5 fps; 1 is the longest 4f + 1. At 10 fps there would be 7.
    assert "give 4 frames at 5 fps from 0 s on, needed 5: ask for at most 1 frames" in row["reason"]
    assert row["reason"].endswith("or for a higher fps")
    assert len(read_video(videos / "b" / "short.mp4", **{**READING, "fps": 10}).frames) == 5
    write_video(videos / "a" / "broken.mp4", moving_frames(14), fps=10)
    (videos / "b" / "short.mp4").unlink()
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == ["a/broken.mp4"]
    assert not list((tmp_path / "out").glob("*.json"))


def test_lists_of_earlier_runs_are_removed(videos, tmp_path, vae, space):
    (videos / "a" / "broken.mp4").write_bytes(b"nothing")

    def lists(count, index=0):
        shard = {"process_index": index, "num_processes": count}
        encode(videos, tmp_path / "out", vae, space, **shard)
        return sorted(path.name for path in (tmp_path / "out").glob("*.json"))

    assert lists(2) == ["unreadable-0.json"]
    (tmp_path / "out" / "unreadable-2.json").write_text("[]")
    assert lists(3) == ["unreadable-0.json", "unreadable-2.json"], "that of the third process"
    assert lists(2) == ["unreadable-0.json"]
    assert lists(1) == ["unreadable.json"]


def test_names_of_all_lengths_and_kinds(tmp_path, vae, space, monkeypatch):
    names = ["n" * 232 + ".mp4", "é" * 125 + ".mp4", "12:30.mp4"]
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path / "videos")
    write_video(names[-1], moving_frames(9), fps=5)
    for name in names[:-1]:
        shutil.copy(names[-1], name)
    shutil.copy(names[-1], b"\xff.mp4")
    report = encode(".", tmp_path / "out", vae, space)
    assert [str(path) for path in report.encoded] == sorted(names)
    assert [(str(path), reason) for path, reason in report.unreadable] == [
        ("\udcff.mp4", "its name is not UTF-8: rename it")
    ]
    folder = LatentFolder(tmp_path / "out")
    assert sorted(clip.source for clip in folder) == sorted(names)
    assert len({info.path for info in folder.infos}) == 3
    assert encode(".", tmp_path / "out", vae, space).encoded == []
    (tmp_path / "out" / "12:30.mp4.safetensors").rename(tmp_path / "out" / "x.safetensors")
    latents = tmp_path / "out" / "x.safetensors"
    latents.rename(os.fsdecode(os.fsencode(tmp_path / "out") + b"/\xff.safetensors"))
    with pytest.raises(LatentFileError, match=r"xff\.safetensors has a name that is not UTF-8"):
        LatentFolder(tmp_path / "out")


def test_what_is_passed_over_is_counted(videos, tmp_path, vae, space):
    for name in ("a/x.flv", "b/x.ts", "b/y.ts", "b/README", "front.png", "shot/notes.txt"):
        (videos / name).write_bytes(b"x")
    (videos / "a" / ".hidden.ts").write_bytes(b"x")
    (videos / "linked").symlink_to(videos / "a")
    (videos / "linked.mp4").symlink_to(videos / "b" / "y.mp4")
    (videos / "gone.mp4").symlink_to(videos / "nothing.mp4")
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == [*NAMES[:4], "linked.mp4", "shot"]
    assert sorted(report.passed_over) == [
        f"1 files that end in .flv, the first is {videos / 'a' / 'x.flv'}",
        f"1 files that end in .txt, the first is {videos / 'shot' / 'notes.txt'}",
        f"1 files without a suffix, the first is {videos / 'b' / 'README'}",
        f"1 linked folders, which are not followed, the first is {videos / 'linked'}",
        f"1 links to nothing, the first is {videos / 'gone.mp4'}",
        f"1 pictures that are in no folder of their own, the first is {videos / 'front.png'}",
        f"2 files that end in .ts, the first is {videos / 'b' / 'x.ts'}",
    ]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.flv").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no videos below .* There are 1 files that end in \.flv"):
        encode(tmp_path / "empty", tmp_path / "out", vae, space)


def test_folders_are_listed_once_however_many_clips_they_hold(tmp_path, vae, space, monkeypatch):
    scandir, listed = os.scandir, []

    def counted(path="."):
        listed.append(path)
        return scandir(path)

    write_video(tmp_path / "x.mp4", moving_frames(9), fps=5)
    counts = []
    for size in (2, 8):
        folder = tmp_path / f"videos-{size}"
        folder.mkdir()
        for index in range(size):
            shutil.copy(tmp_path / "x.mp4", folder / f"{index}.mp4")
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", counted)
            listed.clear()
            encode(folder, tmp_path / f"out-{size}", vae, space)
            encode(folder, tmp_path / f"out-{size}", vae, space)
        counts.append(len(listed))
    assert 0 < counts[0] == counts[1]


def test_a_full_disk_is_named_and_the_run_goes_on(videos, tmp_path, vae, space):
    with full_disk(500), pytest.raises(OSError, match="could not be written") as caught:
        encode(videos, tmp_path / "out", vae, space)
    assert "a/x.mp4.safetensors" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert contents(tmp_path / "out") == {}
    assert len(encode(videos, tmp_path / "out", vae, space).encoded) == 5


def test_two_runs_do_not_write_to_one_folder(videos, tmp_path, vae, space):
    with (
        ThreadPoolExecutor(1) as other,
        folder_lock(tmp_path / "out"),
        pytest.raises(FolderInUseError, match="writes to"),
    ):
        other.submit(encode, videos, tmp_path / "out", vae, space).result()
    assert len(encode(videos, tmp_path / "out", vae, space).encoded) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 10}, r"fps was 5\.0, is now 10\.0"),
        ({"height": 8}, "height was 16, is now 8"),
        ({"num_frames": None}, "num_frames was 5, is now None"),
        ({"tile": None}, r"tile was \[240, 360\], is now None"),
        ({"space": "other"}, "space was .*id='cogvideox-vae-.*is now .*id='other'"),
    ],
)
def test_other_settings_are_refused_before_anything_is_encoded(
    videos, tmp_path, vae, space, changes, message
):
    encode(videos, tmp_path / "out", vae, space)
    (tmp_path / "out" / "a" / "x.mp4.safetensors").unlink()
    before = contents(tmp_path / "out")
    if "space" in changes:
        changes = {"space": type(space).from_vae(vae, id="other")}
    with pytest.raises(EncodeMismatchError, match=message) as caught:
        encode(videos, tmp_path / "out", **{"vae": vae, "space": space, **changes})
    assert "overwrite=True" in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_a_changed_source_is_refused_and_overwritten_when_asked(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space)
    write_video(videos / "b" / "x.mp4", moving_frames(14, seed=9), fps=10)
    with pytest.raises(EncodeMismatchError, match="content of the source has changed"):
        encode(videos, tmp_path / "out", vae, space)
    report = encode(videos, tmp_path / "out", vae, space, overwrite=True)
    assert relative(report.encoded, videos) == ["b/x.mp4"]
    report = encode(videos, tmp_path / "out", vae, space, overwrite=True, height=24)
    assert relative(report.encoded, videos) == NAMES
    assert load_clip(tmp_path / "out" / "b" / "x.mp4.safetensors").latents.shape[2] == 3


def test_a_damaged_output_is_refused_and_overwritten_when_asked(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "b" / "y.mp4.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"b/y\.mp4\.safetensors is not a whole"):
        encode(videos, tmp_path / "out", vae, space)
    report = encode(videos, tmp_path / "out", vae, space, overwrite=True)
    assert relative(report.encoded, videos) == ["b/y.mp4"]
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 20}, "multiples of 8, got 20x24"),
        ({"num_frames": 6}, r"4f \+ 1"),
        ({"tile": (100, 100)}, "multiples of"),
        ({"frames_fps": None}, "shot is a folder of frames"),
    ],
)
def test_impossible_requests_stop_at_once(videos, tmp_path, vae, space, changes, message):
    with pytest.raises(ValueError, match=message):
        encode(videos, tmp_path / "out", vae, space, **changes)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(tmp_path, vae, space):
    with pytest.raises(ValueError, match="no videos below"):
        encode(tmp_path, tmp_path / "out", vae, space)


def test_longest_clips(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space, num_frames=None)
    # 14 frames at 10 fps are shown as frames 0, 2, ..., 12 at 5 fps: 7, of which 5 are kept
    assert {info.num_frames for info in LatentFolder(tmp_path / "out").infos} == {5}


def test_a_limit_is_part_of_how_a_clip_was_made(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space, num_frames=None, max_frames=5)
    assert {info.num_frames for info in LatentFolder(tmp_path / "out").infos} == {5}
    with pytest.raises(EncodeMismatchError, match="max_frames was 5, is now 9"):
        encode(videos, tmp_path / "out", vae, space, num_frames=None, max_frames=9)


def test_progress_is_shown_by_the_main_process_only(videos, tmp_path, vae, space, capsys):
    shard = {"num_processes": 2, "progress": True}
    encode(videos, tmp_path / "out", vae, space, process_index=1, **shard)
    assert capsys.readouterr().err == ""
    encode(videos, tmp_path / "out", vae, space, process_index=0, **shard)
    assert "3/3" in capsys.readouterr().err


def encode_and_die(videos, out, vae):
    """Encode, and die by SIGKILL when the third file is complete under its temporary name."""
    replace, written = Path.replace, []

    def replace_or_die(self, target):
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(target)
        return replace(self, target)

    Path.replace = replace_or_die
    vae = AutoencoderKLCogVideoX.from_pretrained(vae)
    encode(videos, out, vae, LatentSpace.from_vae(vae))


@on_unix
def test_a_killed_run_is_resumed(videos, tmp_path, vae, space):
    vae.save_pretrained(tmp_path / "vae")
    killed = partial(encode_and_die, videos, tmp_path / "out", tmp_path / "vae")
    assert run_apart([killed]) == [-signal.SIGKILL]
    left = sorted(contents(tmp_path / "out"))
    assert [name for name in left if name.endswith(".safetensors")] == [
        "a/x.mp4.safetensors",
        "b/x.gif.safetensors",
    ]
    assert left.pop(0) == LOCK_FILE
    assert len(left) == 3, "the killed process left no temporary file: killed too early?"
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.already_done, videos) == NAMES[:2]
    assert relative(report.encoded, videos) == NAMES[2:]
    encode(videos, tmp_path / "uninterrupted", vae, space)
    assert contents(tmp_path / "out") == contents(tmp_path / "uninterrupted")


def test_another_vae_is_not_taken_for_the_same(videos, tmp_path, vae, space):
    encode(videos, tmp_path / "out", vae, space)
    other = make_vae(seed=1)
    with pytest.raises(EncodeMismatchError, match="space was"):
        encode(videos, tmp_path / "out", other, type(space).from_vae(other))
