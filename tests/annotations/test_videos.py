"""From names to latent files: equal paths, ends of paths, and nothing where it is ambiguous."""

import random
import time
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from gtsvj_reward.annotations import (
    Comparison,
    Comparisons,
    FoundClips,
    Rating,
    Ratings,
    find_clips,
    keep_found_comparisons,
    keep_found_ratings,
)
from tests.annotations.rows import latent_folder


def sources(found):
    return {name: info.source for name, info in found.clips.items()}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("kling1.5/x.mp4", "kling1.5/x.mp4"),
        ("videos/kling1.5/x.mp4", "kling1.5/x.mp4"),
        ("/data/videos/kling1.5/x.mp4", "kling1.5/x.mp4"),
        ("x.mp4", "kling1.5/x.mp4"),
        ("./x.mp4", "kling1.5/x.mp4"),
        ("https://host/resolve/main/kling1.5/x.mp4?download=true#t=1", "kling1.5/x.mp4"),
        ("https://host/a/my%20clip%3F.mp4", "my clip?.mp4"),
        ("https://host/x.mp4", "/abs/x.mp4"),
        ("shot/", "b/shot"),
        ("x", "kling1.5/x.mp4"),
        ("videos/kling1.5/x", "kling1.5/x.mp4"),
        ("x.mp4", "b/x"),
        ("C:\\data\\kling1.5\\x.mp4", "kling1.5/x.mp4"),
        ("cafe\u0301.mp4", "a/caf\u00e9.mp4"),
    ],
)
def test_names_that_match(tmp_path, name, source):
    folder = latent_folder(tmp_path, [source, "other.mp4", None])
    found = find_clips([name], folder)
    assert sources(found) == {name: source}
    assert found.clips[name].path == tmp_path / "000.safetensors"
    assert found.missing == ()


@pytest.mark.parametrize(
    "name", ["5/x.mp4", "ling1.5/x.mp4", "y.mp4", "kling1.5/x.mp4/y", "kling1.5", "X.mp4", "x.gif"]
)
def test_names_that_do_not_match(tmp_path, name):
    folder = latent_folder(tmp_path, ["kling1.5/x.mp4", None])
    with pytest.raises(
        ValueError, match=r"1 of 1 videos .*\(2 files, 1 of them without a source\).*allow_missing"
    ) as caught:
        find_clips([name], folder)
    assert name in str(caught.value)
    assert find_clips([name], folder, allow_missing=True).missing == (name,)


def test_an_equal_path_wins(tmp_path):
    folder = latent_folder(tmp_path, ["x.mp4", "a/x.mp4", "b/a/x.mp4"])
    names = ["b/a/x.mp4", "x.mp4", "https://host/a/x.mp4"]
    assert list(sources(find_clips(names, folder)).values()) == ["b/a/x.mp4", "x.mp4", "a/x.mp4"]


def test_ambiguous_names(tmp_path):
    folder = latent_folder(tmp_path, ["a/x.mp4", "b/x.mp4", "x/y.mp4", "y.mp4"])
    with pytest.raises(ValueError, match=r"^x.mp4 matches 2 latent files: .*a/x.mp4.*b/x.mp4"):
        find_clips(["x.mp4"], folder, allow_missing=True)
    with pytest.raises(ValueError, match=r"^v/x/y.mp4 matches 2 latent files"):
        find_clips(["v/x/y.mp4"], folder)
    assert sources(find_clips(["v/a/x.mp4"], folder)) == {"v/a/x.mp4": "a/x.mp4"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a/x.mp4", "b/x.mp4"),
        ("x.mp4", "b/x.mp4"),
        ("https://host/x.mp4", "https://other/x.mp4"),
        ("https://host/x.mp4", "x.mp4"),
        ("https://host/x.mp4?id=1a", "https://host/x.mp4?id=1b"),
        ("x.mp4", "x"),
    ],
)
def test_two_videos_for_one_file(tmp_path, first, second):
    folder = latent_folder(tmp_path, ["x.mp4"])
    for names in ([first, second], [second, first]):
        with pytest.raises(ValueError, match="both match") as caught:
            find_clips(names, folder, allow_missing=True)
        assert first in str(caught.value)
        assert second in str(caught.value)


def test_two_names_of_one_video(tmp_path):
    folder = latent_folder(tmp_path, ["x.mp4"])
    for names in (["x.mp4", "./x.mp4"], ["https://h/x.mp4?a=1&b=2", "http://H/x.mp4?b=2&a=1#t=3"]):
        assert list(find_clips(names, folder).clips) == names


def test_two_files_of_one_source(tmp_path):
    folder = latent_folder(tmp_path, ["x.mp4", "x.mp4"], ["fps8/x", "fps16/x"])
    with pytest.raises(ValueError, match=r"fps16/x.safetensors .*fps8/x.safetensors are both of"):
        find_clips(["y.mp4"], folder, allow_missing=True)


def test_nameless(tmp_path):
    folder = latent_folder(tmp_path, ["x.mp4"])
    with pytest.raises(ValueError, match="expected the name of a video, got 'https://host/'"):
        find_clips(["https://host/"], folder, allow_missing=True)


def slow_match(name, known):
    """Whole components, read off the definition; the names here are paths."""
    parts = PurePosixPath(name).parts
    if name in known:
        return [name]
    return [
        source
        for source in known
        if parts[-len(PurePosixPath(source).parts) :] == PurePosixPath(source).parts
        or PurePosixPath(source).parts[-len(parts) :] == parts
    ]


def test_against_the_definition(tmp_path):
    draw = random.Random(0)

    def path():
        return "/".join(draw.choice("abc") for _ in range(draw.randint(1, 4)))

    known = sorted({path() for _ in range(14)})
    folder = latent_folder(tmp_path, known)
    outcomes = set()
    for _ in range(300):
        name = path()
        expected = slow_match(name, known)
        outcomes.add(min(len(expected), 2))
        if len(expected) > 1:
            with pytest.raises(ValueError, match=f"{name} matches {len(expected)} latent files"):
                find_clips([name], folder)
        else:
            found = find_clips([name], folder, allow_missing=True)
            assert list(sources(found).values()) == expected
            assert found.missing == (() if expected else (name,))
    assert outcomes == {0, 1, 2}


def test_many_files_of_one_name(tmp_path):
    folder = latent_folder(tmp_path, ["0/video.mp4"])
    info = folder.infos[0]
    folder.infos = [replace(info, source=f"{n}/video.mp4") for n in range(10_000)]
    names = [f"videos/{n}/video.mp4" for n in range(10_000)]
    start = time.process_time()
    found = find_clips(names, folder)
    # Each name against each file would be 100 million steps.
    assert time.process_time() - start < 10
    assert sources(found) == {name: name.removeprefix("videos/") for name in names}


def test_keeping_what_was_found(tmp_path):
    folder = latent_folder(tmp_path, ["a", "b", "c"])
    pairs = [("a", "b"), ("a", "d"), ("d", "c"), ("b", "c"), ("d", "e")]
    comparisons = Comparisons(
        name="n",
        rows=tuple(
            Comparison(row=a + b, video_a=a, video_b=b, labels={"overall": 1}) for a, b in pairs
        ),
        dimensions=("overall",),
        skipped={"reason": 2},
    )
    assert comparisons.videos() == ("a", "b", "d", "c", "e")
    found = find_clips(comparisons.videos(), folder, allow_missing=True)
    assert found.missing == ("d", "e")
    kept, left_out = keep_found_comparisons(comparisons, found)
    assert ([row.row for row in kept.rows], left_out) == (["ab", "bc"], 3)
    assert (kept.name, kept.dimensions, kept.skipped) == ("n", ("overall",), {"reason": 2})
    ratings = Ratings(
        name="n",
        rows=tuple(Rating(row=name, video=name, scores={}) for name in "adbd"),
        aspects=("x",),
    )
    assert ratings.videos() == ("a", "d", "b")
    kept, left_out = keep_found_ratings(ratings, found)
    assert ([row.row for row in kept.rows], left_out) == (["a", "b"], 2)
    nothing = FoundClips(clips={}, missing=("a",))
    with pytest.raises(ValueError, match=r"2 of 3 videos are neither .*: d; b; pass all names"):
        keep_found_ratings(ratings, nothing)
    with pytest.raises(ValueError, match="4 of 5 videos are neither"):
        keep_found_comparisons(comparisons, nothing)
