"""Reading and writing videos: which frames, which part of them, and what is refused."""

import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from gtsvj_reward.latents import (
    UnreadableVideoError,
    VideoTooShortError,
    list_videos,
    read_video,
    write_video,
)
from gtsvj_reward.latents.sources import source_sha256
from tests.latents.tiny import moving_frames
from tests.latents.tracks import counting_frames, shown, write_track

SIZE = {"height": 32, "width": 48}


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "folder"])
def test_frames_by_hand(tmp_path, name):
    write_video(tmp_path / name, counting_frames(30), fps=20)
    frames_fps = 20 if name == "folder" else None
    clip = read_video(tmp_path / name, fps=8, num_frames=9, frames_fps=frames_fps, **SIZE)
    # k * 20 / 8 = 0, 2.5, 5, 7.5, ...: halves go up
    assert shown(clip) == list(clip.source_indices) == [0, 3, 5, 8, 10, 13, 15, 18, 20]
    assert (clip.fps, clip.source_fps, clip.source_size) == (8, 20, (32, 48))
    later = read_video(
        tmp_path / name, fps=20, num_frames=5, start=0.5, frames_fps=frames_fps, **SIZE
    )
    assert shown(later) == [10, 11, 12, 13, 14]


def test_repeats_instead_of_mixing(tmp_path):
    write_video(tmp_path / "x.mp4", counting_frames(5), fps=10)
    clip = read_video(tmp_path / "x.mp4", fps=20, num_frames=9, **SIZE)
    assert shown(clip) == [0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_longest_clip_has_4f_plus_1_frames(tmp_path):
    for time, expected in ((1, 1), (4, 1), (5, 5), (12, 9), (13, 13)):
        write_video(tmp_path / f"{time}.mp4", counting_frames(time), fps=10)
        clip = read_video(tmp_path / f"{time}.mp4", fps=10, **SIZE)
        assert shown(clip) == list(range(expected))


def test_the_longest_clip_may_have_a_limit(tmp_path):
    for time, expected in ((4, 1), (8, 5), (9, 9), (13, 9)):
        write_video(tmp_path / f"{time}.mp4", counting_frames(time), fps=10)
        clip = read_video(tmp_path / f"{time}.mp4", fps=10, max_frames=9, **SIZE)
        assert shown(clip) == list(range(expected))
    with pytest.raises(ValueError, match=r"expected 4f \+ 1 frames .* got 8: take 5"):
        read_video(tmp_path / "13.mp4", fps=10, max_frames=8, **SIZE)
    with pytest.raises(ValueError, match="`num_frames` or `max_frames`, got 5 and 9"):
        read_video(tmp_path / "13.mp4", fps=10, num_frames=5, max_frames=9, **SIZE)


def test_crop_is_centred_and_covers(tmp_path):
    frames = torch.zeros(5, 40, 80, 3, dtype=torch.uint8)
    frames[:, :, 20:60] = 200  # the centred square
    write_video(tmp_path / "wide", frames, fps=8)
    square = read_video(tmp_path / "wide", fps=8, frames_fps=8, height=20, width=20).frames
    # 80x40 covers 20x20 as 40x20, of which columns 10 to 29 are the centre
    covering = Image.fromarray(frames[0].numpy()).resize((40, 20), Image.Resampling.BILINEAR)
    assert torch.equal(square[0], torch.from_numpy(np.asarray(covering)[:, 10:30].copy()))
    assert square[:, :, 1:-1].unique().tolist() == [200]
    frames = frames.transpose(1, 2)
    write_video(tmp_path / "tall", frames, fps=8)
    square = read_video(tmp_path / "tall", fps=8, frames_fps=8, height=60, width=60).frames
    assert square[:, 2:-2].unique().tolist() == [200]
    same = read_video(tmp_path / "tall", fps=8, frames_fps=8, height=80, width=40).frames
    assert torch.equal(same, frames)


def test_resizing_is_antialiased(tmp_path):
    stripes = torch.zeros(1, 32, 64, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 200
    write_video(tmp_path / "x", stripes, fps=8)
    small = read_video(tmp_path / "x", fps=8, frames_fps=8, height=8, width=16).frames
    assert small[:, 2:-2, 2:-2].float().sub(100).abs().max() < 15


def test_batch_is_what_a_vae_takes(tmp_path):
    write_video(tmp_path / "x", counting_frames(5), fps=8)
    batch = read_video(tmp_path / "x", fps=8, frames_fps=8, **SIZE).batch()
    assert batch.shape == (1, 5, 3, 32, 48)
    torch.testing.assert_close(batch[0, :, 0, 0, 0], torch.arange(5) * 4 / 255)


def test_frames_of_a_folder_are_in_natural_order(tmp_path):
    for number in (2, 10, 1, 9, 3):
        Image.new("RGB", (48, 32), (4 * number,) * 3).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = read_video(tmp_path, fps=8, frames_fps=8, **SIZE)
    assert shown(clip) == [1, 2, 3, 9, 10]


def test_mp4_keeps_the_picture_and_its_size(tmp_path):
    frames = moving_frames(9, 34, 50)  # ffmpeg writers like to round sizes up to 16
    write_video(tmp_path / "x.mp4", frames, fps=12)
    clip = read_video(tmp_path / "x.mp4", fps=12, height=34, width=50)
    assert clip.source_size == (34, 50)
    assert (clip.frames.float() - frames.float()).abs().mean() < 5  # colour is stored at half size


def damaged(tmp_path, kind):
    path = tmp_path / "x.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    options = {"movflags": "+faststart"}
    write_track(path, range(40), noise, tick=Fraction(1, 10), container_options=options)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if kind == "cut":
        content = content[:half]
    elif kind == "no header":
        content = content[half:]
    elif kind == "overwritten":
        content[half : half + 5000] = os.urandom(5000)
    elif kind == "empty":
        content = bytearray()
    elif kind == "text":
        content = bytearray(b"these are words " * 100)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", r"cut short or damaged after frame \d+ \(Invalid data"),
        ("overwritten", "cut short or damaged"),
        ("no header", "not a video"),
        ("empty", "the file is empty"),
        ("text", "not a video"),
    ],
)
def test_damaged_files_are_named_with_a_reason(tmp_path, kind, reason):
    path = damaged(tmp_path, kind)
    with pytest.raises(UnreadableVideoError, match=reason) as caught:
        read_video(path, fps=10, **SIZE)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert caught.value.reason in str(caught.value)


def test_damaged_gifs_are_named_with_a_reason(tmp_path):
    write_video(tmp_path / "x.gif", moving_frames(8), fps=10)
    content = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableVideoError, match="its end is missing"):
        read_video(tmp_path / "x.gif", fps=10, **SIZE)
    (tmp_path / "x.gif").write_bytes(b"not a picture;")
    with pytest.raises(UnreadableVideoError, match="damaged gif"):
        read_video(tmp_path / "x.gif", fps=10, **SIZE)


def test_the_sound_frames_before_a_cut_can_be_used(tmp_path):
    path = damaged(tmp_path, "cut")
    assert len(read_video(path, fps=10, num_frames=9, **SIZE).frames) == 9


def test_missing_and_short_videos(tmp_path):
    with pytest.raises(UnreadableVideoError, match="no such file"):
        read_video(tmp_path / "none.mp4", fps=8, **SIZE)
    write_video(tmp_path / "x.mp4", counting_frames(10), fps=10)
    with pytest.raises(
        VideoTooShortError, match=r"10 frames at 10 fps give 8 frames at 8 fps .* needed 9"
    ):
        read_video(tmp_path / "x.mp4", fps=8, num_frames=9, **SIZE)
    with pytest.raises(VideoTooShortError, match=r"give 0 frames .* from 5 s on"):
        read_video(tmp_path / "x.mp4", fps=8, start=5, **SIZE)


def test_broken_folders_of_frames(tmp_path):
    write_video(tmp_path / "x", counting_frames(3), fps=8)
    with pytest.raises(ValueError, match="frames_fps"):
        read_video(tmp_path / "x", fps=8, **SIZE)
    (tmp_path / "x" / "000001.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableVideoError, match=r"000001\.png"):
        read_video(tmp_path / "x", fps=8, frames_fps=8, **SIZE)
    Image.new("RGB", (8, 6)).save(tmp_path / "x" / "000001.png")
    with pytest.raises(UnreadableVideoError, match=r"000001\.png has 8x6 pixels, the others 48x32"):
        read_video(tmp_path / "x", fps=8, frames_fps=8, **SIZE)
    (tmp_path / "none").mkdir()
    with pytest.raises(UnreadableVideoError, match="no png or jpg"):
        read_video(tmp_path / "none", fps=8, frames_fps=8, **SIZE)


@pytest.mark.parametrize(
    "changes",
    [
        {"fps": 0},
        {"start": -1.0},
        {"height": 0},
        {"frames_fps": -2},
        {"num_frames": 8},
        {"num_frames": 0},
    ],
)
def test_impossible_arguments(tmp_path, changes):
    write_video(tmp_path / "x", counting_frames(9), fps=8)
    with pytest.raises(ValueError, match="expected"):
        read_video(tmp_path / "x", **{"fps": 8, "frames_fps": 8, **SIZE, **changes})


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("x.mp4", torch.zeros(2, 33, 48, 3), 8, "even height and width, got 33x48"),
        ("x.gif", torch.zeros(2, 32, 48, 3), 24, "gif cannot hold 24 fps"),
        ("x.avi", torch.zeros(2, 32, 48, 3), 24, "expected .mp4, .gif or a folder"),
        ("x.mp4", torch.zeros(0, 32, 48, 3), 24, "no frames"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames.to(torch.uint8), fps)


def test_folder_of_frames_is_not_written_over(tmp_path):
    write_video(tmp_path / "x", counting_frames(3), fps=8)
    with pytest.raises(ValueError, match="not empty"):
        write_video(tmp_path / "x", counting_frames(2), fps=8)


def test_listing(tmp_path):
    for name in ("b/x.MP4", "a/y.gif", "a/x.webm", ".hidden/z.mp4", "a/.z.mp4", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_video(tmp_path / "a" / "shot", counting_frames(1), fps=8)
    names = [path.relative_to(tmp_path).as_posix() for path in list_videos(tmp_path)]
    assert names == ["a/shot", "a/x.webm", "a/y.gif", "b/x.MP4"]


def test_empty_and_missing_folders(tmp_path):
    with pytest.raises(ValueError, match="no videos below"):
        list_videos(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        list_videos(tmp_path / "none")


def test_hash_of_a_source_follows_its_content(tmp_path):
    write_video(tmp_path / "x", counting_frames(3), fps=8)
    before = source_sha256(tmp_path / "x")
    assert before == source_sha256(tmp_path / "x")
    Image.new("RGB", (48, 32), (9, 9, 9)).save(tmp_path / "x" / "000001.png")
    assert source_sha256(tmp_path / "x") != before
