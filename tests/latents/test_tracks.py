"""The frames' own times decide which of them are taken; what is shown is what is read."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from gtsvj_reward.latents import UnreadableVideoError, read_video, write_video
from gtsvj_reward.latents.frames import Frame, nearest
from tests.latents.tracks import counting_frames, cut, shown, write_track

SIZE = {"height": 32, "width": 48}
TENTH = Fraction(1, 10)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.webm", "x.mov"])
def test_variable_frame_rates(tmp_path, name):
    codec = {"codec": "libvpx"} if name == "x.webm" else {}
    path = write_track(tmp_path / name, [0, 40, 300, 700, 710, 1000, 1040, 2000], **codec)
    clip = read_video(path, fps=5, num_frames=9, **SIZE)
    # wanted at 0, .2, .4, .6, .8, 1, 1.2, 1.4, 1.6 s; .2 is nearer to .3 than to .04, and 1.6 lies
    # after the middle of 1.04 and 2, which is 1.52
    assert shown(clip) == [0, 2, 2, 3, 4, 5, 6, 6, 7]
    assert clip.source_indices == (0, 2, 2, 3, 4, 5, 6, 6, 7)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_sound_that_begins_first_moves_no_frame(tmp_path, name):
    path = write_track(tmp_path / name, range(500, 1500, 100), sound=1.5)
    clip = read_video(path, fps=10, num_frames=9, **SIZE)
    assert shown(clip) == list(clip.source_indices) == list(range(9))
    later = read_video(path, fps=10, num_frames=5, start=0.3, **SIZE)
    assert shown(later) == list(later.source_indices) == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("bframes", ["0", "2"])
def test_a_copied_cut_starts_where_players_start(tmp_path, bframes):
    options = {"crf": "10", "g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": bframes}
    whole = write_track(tmp_path / "whole.mp4", range(40), tick=TENTH, options=options)
    path = cut(whole, tmp_path / "cut.mp4", first_packet=10, first_shown=14, tick=TENTH)
    # frames 10 to 13 are in the file, since 14 needs them, and its edit list hides them
    clip = read_video(path, fps=5, num_frames=5, **SIZE)
    assert shown(clip) == [14, 16, 18, 20, 22]
    assert clip.source_indices == (0, 2, 4, 6, 8)


@pytest.mark.parametrize(
    ("name", "codec"), [("x.avi", "mpeg4"), ("x.mpg", "mpeg2video"), ("x.mp4", "libx264")]
)
def test_frames_that_are_stored_in_another_order(tmp_path, name, codec):
    path = write_track(
        tmp_path / name,
        range(30),
        tick=Fraction(1, 25),
        codec=codec,
        options={"bf": "2", "g": "12", "b_strategy": "0", "qscale": "2", "flags": "+qscale"},
    )
    clip = read_video(path, fps=12.5, num_frames=13, **SIZE)
    assert shown(clip) == list(clip.source_indices) == list(range(0, 26, 2))


def test_a_thousand_frames_per_second(tmp_path):
    path = write_track(tmp_path / "x.mp4", range(20), tick=Fraction(1, 1000))
    clip = read_video(path, fps=500, num_frames=9, **SIZE)
    assert shown(clip) == list(range(0, 18, 2))
    assert clip.source_fps == pytest.approx(1000)


def test_the_last_picture_lasts_as_long_as_the_file_says(tmp_path):
    path = write_track(tmp_path / "x.mp4", [0, 100, 200, 300, 400], tick=Fraction(1, 1000))
    # at 20 fps: 0, .05, ..., .4, and .45 is as near to the end, .5, as to the last picture
    clip = read_video(path, fps=20, num_frames=9, **SIZE)
    assert shown(clip) == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(UnreadableVideoError, match=r"5 frames .* give 9 frames at 20 fps"):
        read_video(path, fps=20, num_frames=13, **SIZE)


@given(
    gaps=st.lists(st.fractions(0, 2, max_denominator=20), min_size=1, max_size=8),
    rate=st.fractions(Fraction(1, 2), 12, max_denominator=20),
    start=st.fractions(0, 2, max_denominator=20),
)
def test_nearest_is_nearest(gaps, rate, start):
    times = [sum(gaps[:index], Fraction(0)) for index in range(len(gaps))]
    ends = [*times[1:], times[-1] + gaps[-1]]
    frames = [
        Frame(index=i, time=time, end=end, picture=lambda: np.zeros((1, 1, 3), np.uint8))
        for i, (time, end) in enumerate(zip(times, ends, strict=True))
    ]
    targets = [start + k / rate for k in range(200)]
    taken = list(nearest(iter(frames), iter(targets)))
    for target, frame in zip(targets, taken, strict=False):
        assert abs(frame.time - target) == min(abs(time - target) for time in times)
    # it goes on until the end is as near as the last frame
    expected = sum(2 * target < times[-1] + ends[-1] for target in targets)
    assert len(taken) == max(expected, sum(target <= times[-1] for target in targets))


def test_no_frame_is_read_that_is_not_needed():
    def frames():
        for index in range(3):
            yield Frame(
                index=index,
                time=Fraction(index),
                end=Fraction(index + 1),
                picture=lambda: np.zeros((1, 1, 3), np.uint8),
            )
        raise AssertionError("asked for a fourth frame")

    assert [frame.index for frame in nearest(frames(), iter([Fraction(0), Fraction(2)]))] == [0, 2]


def test_sound_may_be_longer_than_the_picture(tmp_path):
    path = write_track(tmp_path / "x.mp4", range(0, 1000, 100), sound=4)
    assert shown(read_video(path, fps=10, num_frames=9, **SIZE)) == list(range(9))
    assert len(read_video(path, fps=10, **SIZE).frames) == 9


@pytest.mark.parametrize(
    ("name", "sound"), [("x.mp4", 0), ("x.mkv", 0), ("x.avi", 0), ("x.mp4", 4), ("x.mkv", 4)]
)
def test_a_file_that_ends_too_early_is_refused(tmp_path, name, sound):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    options = {"container_options": {"movflags": "+faststart"}} if name == "x.mp4" else {}
    codec = "mpeg4" if name == "x.avi" else "libx264"
    ticks = {"ticks": range(40), "tick": TENTH}
    path = write_track(tmp_path / name, **ticks, frames=noise, codec=codec, sound=sound, **options)
    assert len(read_video(path, fps=10, **SIZE).frames) == 37
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(UnreadableVideoError, match=r"cut short|damaged"):
        read_video(path, fps=10, **SIZE)


def test_a_sound_file_is_no_video(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        heard = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux([*heard.encode(silence), *heard.encode()])
    with pytest.raises(UnreadableVideoError, match="no video track"):
        read_video(tmp_path / "x.mp4", fps=8, **SIZE)


def corners():
    """Top left 40, top right 80, bottom left 120, bottom right 160."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24], picture[16:, 24:] = 40, 80, 120, 160
    return picture


def seen(frame):
    """Its four corners in the same order."""
    quarters = [frame[4, 4], frame[4, -4], frame[-4, 4], frame[-4, -4]]
    return [20 * round(int(quarter.float().mean()) / 20) for quarter in quarters]


def test_pixels_that_are_not_square(tmp_path):
    # 48 x 32 pixels, each twice as wide as high: shown as 96 x 32
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, 16:32] = 200  # the middle third
    aspect = {"changes": {"sample_aspect_ratio": Fraction(2)}}
    path = write_track(tmp_path / "x.mp4", [0], picture[None], **aspect)
    clip = read_video(path, fps=8, height=32, width=96)
    assert clip.source_size == (32, 96)
    columns = clip.frames[0, 16].float().mean(-1)
    assert columns[:28].max() < 20 < 180 < columns[36:60].min()
    # a square of 32 x 32 is cut out of the middle: columns 16 to 31 of the file, nothing else
    assert read_video(path, fps=8, height=32, width=32).frames[0, :, 2:-2].float().min() > 180
    # and what has the file's own number of pixels is no way round that: 48 of the 96 are cut out
    middle = read_video(path, fps=8, height=32, width=48).frames[0, 16].float().mean(-1)
    assert middle[:4].max() < 20 < 180 < middle[12:36].min()


@pytest.mark.parametrize(
    ("matrix", "expected", "size"),
    [
        ((1, 0, 0, 1), [40, 80, 120, 160], (32, 48)),
        ((0, 1, -1, 0), [120, 40, 160, 80], (48, 32)),  # clockwise, as phones write it
        ((-1, 0, 0, -1), [160, 120, 80, 40], (32, 48)),
        ((0, -1, 1, 0), [80, 160, 40, 120], (48, 32)),
        ((-1, 0, 0, 1), [80, 40, 160, 120], (32, 48)),  # a mirror
    ],
)
def test_pictures_are_turned_as_the_file_says(tmp_path, matrix, expected, size):
    path = write_track(tmp_path / "x.mp4", [0], corners()[None])
    content = bytearray(path.read_bytes())
    a, b, c, d = (int(value * 65536) for value in matrix)
    start = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes stand before the matrix
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    clip = read_video(path, fps=8, height=size[0], width=size[1])
    assert seen(clip.frames[0]) == expected
    assert clip.source_size == size


@pytest.mark.parametrize(("transfer", "name"), [(16, "HDR, PQ"), (18, "HDR, HLG")])
def test_hdr_is_refused_by_name(tmp_path, transfer, name):
    path = write_track(
        tmp_path / "x.mp4",
        range(3),
        pix_fmt="yuv420p10le",
        changes={"color_trc": transfer, "color_primaries": 9, "colorspace": 9},
    )
    with pytest.raises(UnreadableVideoError, match=f"{name}, .* convert it"):
        read_video(path, fps=8, num_frames=1, **SIZE)


def test_ten_bits_of_standard_range_are_read(tmp_path):
    path = write_track(tmp_path / "x.mp4", range(0, 900, 100), pix_fmt="yuv420p10le")
    frames = read_video(path, fps=10, num_frames=9, **SIZE).frames
    assert (frames.int() - counting_frames(9).int()).abs().max() <= 1


def see_through():
    """Level 200 everywhere: opaque on the left, half opaque on the right."""
    rgba = np.full((32, 48, 4), 200, np.uint8)
    rgba[:, :24, 3], rgba[:, 24:, 3] = 255, 128
    return rgba


def test_transparent_places_are_put_on_black(tmp_path):
    write_track(
        tmp_path / "x.mov",
        [0],
        see_through()[None],
        codec="qtrle",
        pix_fmt="argb",
        source_format="rgba",
        options={"strict": "0"},
    )
    (tmp_path / "folder").mkdir()
    Image.fromarray(see_through()).save(tmp_path / "folder" / "0.png")
    grey = Image.fromarray(np.ascontiguousarray(see_through()[:, :, [0, 3]]), "LA")
    (tmp_path / "grey").mkdir()
    grey.save(tmp_path / "grey" / "0.png")
    for name in ("x.mov", "folder", "grey"):
        fps = None if name == "x.mov" else 8
        frame = read_video(tmp_path / name, fps=8, frames_fps=fps, **SIZE).frames[0]
        # 200 * 128 / 255 = 100.4
        assert (frame[:, :24] == 200).all(), name
        assert (frame[:, 24:] == 100).all(), name


def test_a_picture_larger_than_pillow_reads_is_unreadable(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 48 // 2 - 1)
    Image.new("RGB", (48, 32)).save(tmp_path / "0.png")
    with pytest.raises(UnreadableVideoError, match=r"0\.png: Image size \(1536 pixels\)"):
        read_video(tmp_path, fps=8, frames_fps=8, **SIZE)


def test_grey_of_sixteen_bits_is_scaled(tmp_path):
    levels = np.repeat(np.array([0, 257 * 40, 257 * 128, 65535], np.uint16), 12)[None].repeat(32, 0)
    Image.fromarray(levels).save(tmp_path / "0.png")
    frame = read_video(tmp_path, fps=8, frames_fps=8, **SIZE).frames[0]
    assert frame[0, ::12, 0].tolist() == [0, 40, 128, 255]
    assert (frame[:, :, :1] == frame).all()


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [40, 80, 120, 160]), (3, [160, 120, 80, 40]), (6, [120, 40, 160, 80])],
)
def test_pictures_are_turned_as_exif_says(tmp_path, orientation, expected):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(corners()).save(tmp_path / "0.jpg", quality=95, exif=exif)
    size = {"height": 48, "width": 32} if orientation == 6 else SIZE
    clip = read_video(tmp_path, fps=8, frames_fps=8, **size)
    assert seen(clip.frames[0]) == expected
    assert clip.source_size == (size["height"], size["width"])


def test_a_long_picture_of_a_gif_has_one_number(tmp_path):
    frames = counting_frames(8)
    frames[2] = frames[3] = frames[1]  # writers join them to one long picture
    write_video(tmp_path / "x.gif", frames, fps=10)
    clip = read_video(tmp_path / "x.gif", fps=10, num_frames=5, **SIZE)
    assert shown(clip) == [0, 1, 1, 1, 4]
    assert clip.source_indices == (0, 1, 1, 1, 2)


def test_names_that_are_no_unicode_do_not_matter(tmp_path):
    path = write_track(tmp_path / "x.mkv", range(0, 500, 100))
    content = path.read_bytes()
    at = content.index(b"Lavf")
    path.write_bytes(content[:at] + b"\xe2\xe8\xe4\xe5" + content[at + 4 :])
    assert shown(read_video(path, fps=10, num_frames=5, **SIZE)) == list(range(5))
