"""Folders of videos become latent files, whatever happens in between."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from gtsvj_reward.latents import (
    EncodeMismatchError,
    LatentFolder,
    encode_folder,
    load_clip,
    read_video,
    write_video,
)
from tests.latents.tiny import make_vae, moving_frames

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
    write_video(videos / "b" / "short.mp4", moving_frames(3), fps=10)
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == NAMES
    assert [path.name for path, _ in report.unreadable] == ["broken.mp4", "short.mp4"]
    assert "not a video" in report.unreadable[0][1]
    listed = json.loads((tmp_path / "out" / "unreadable.json").read_text())
    assert [row["path"] for row in listed] == ["a/broken.mp4", "b/short.mp4"]
    assert "needed 5" in listed[1]["reason"]
    write_video(videos / "a" / "broken.mp4", moving_frames(14), fps=10)
    (videos / "b" / "short.mp4").unlink()
    report = encode(videos, tmp_path / "out", vae, space)
    assert relative(report.encoded, videos) == ["a/broken.mp4"]
    assert not (tmp_path / "out" / "unreadable.json").exists()


def test_each_shard_has_its_own_list(videos, tmp_path, vae, space):
    (videos / "a" / "broken.mp4").write_bytes(b"nothing")
    shard = {"process_index": 0, "num_processes": 2}
    encode(videos, tmp_path / "out", vae, space, **shard)
    assert (tmp_path / "out" / "unreadable-0.json").exists()
    assert not (tmp_path / "out" / "unreadable.json").exists()


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


KILLED = """
import os, pathlib, signal, sys
from gtsvj_reward.latents import LatentSpace, encode_folder
from diffusers import AutoencoderKLCogVideoX

replace, written = pathlib.Path.replace, []

def replace_or_die(self, target):
    if len(written) == 2:  # the third file is complete under its temporary name
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(target)
    return replace(self, target)

pathlib.Path.replace = replace_or_die
vae = AutoencoderKLCogVideoX.from_pretrained(sys.argv[3])
encode_folder(sys.argv[1], sys.argv[2], vae=vae, space=LatentSpace.from_vae(vae), fps=5, height=16,
              width=24, num_frames=5, frames_fps=10)
"""


def test_a_killed_run_is_resumed(videos, tmp_path, vae, space):
    vae.save_pretrained(tmp_path / "vae")
    arguments = [str(videos), str(tmp_path / "out"), str(tmp_path / "vae")]
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    left = sorted(contents(tmp_path / "out"))
    assert [name for name in left if name.endswith(".safetensors")] == [
        "a/x.mp4.safetensors",
        "b/x.gif.safetensors",
    ]
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
