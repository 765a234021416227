"""Names of comparisons and of score tables meet by the rules of `find_clips`."""

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gtsvj_reward.annotations import find_clips
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.latents import LatentClip, LatentFolder, save_clip
from tests.tiny import clips, tiny_space


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        ("videos/kling/x.mp4", "videos/kling/x.mp4"),
        ("videos/kling/x.mp4", "kling/x.mp4"),
        ("kling/x.mp4", "videos/kling/x.mp4"),
        ("x.mp4", "deep/down/x.mp4"),
        ("https://host/a%20b/x.mp4?token=1", "a b/x.mp4"),
        ("https://host/x.mp4", "https://host/x.mp4"),
        ("a/x.mp4", "https://host/a/x.mp4"),
        ("/a/x.mp4", "a/x.mp4"),
    ],
)
def test_names_that_match(wanted, known):
    assert match_videos([wanted], [known, "other/y.mp4"], "t") == {wanted: known}


@pytest.mark.parametrize(
    ("wanted", "known"), [("ax.mp4", "x.mp4"), ("a/x.mp4", "b/x.mp4"), ("x.mp4", "x.webm")]
)
def test_names_that_do_not(wanted, known):
    assert match_videos([wanted], [known], "t") == {}


def test_the_same_text_comes_first():
    urls = ["https://one/x.mp4", "https://two/x.mp4"]
    assert match_videos(urls, urls, "t") == dict(zip(urls, urls, strict=True))
    assert match_videos(["x.mp4"], ["x.mp4", "a/x.mp4"], "t") == {"x.mp4": "x.mp4"}


def test_ambiguity_is_refused():
    with pytest.raises(ValueError, match=r"x\.mp4 matches 2 videos of t: a/x\.mp4; b/x\.mp4"):
        match_videos(["x.mp4"], ["a/x.mp4", "b/x.mp4"], "t")
    with pytest.raises(ValueError, match=r"b/x\.mp4 and a/x\.mp4 both match x\.mp4 of t"):
        match_videos(["a/x.mp4", "b/x.mp4"], ["x.mp4"], "t")


NAMES = st.lists(
    st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join),
    min_size=1,
    max_size=4,
    unique=True,
)


@given(wanted=NAMES, known=NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_rules_are_those_of_latent_files(tmp_path_factory, wanted, known):
    folder = tmp_path_factory.mktemp("latents")
    latents = clips(1, 1, 2, 2)[0]
    for index, name in enumerate(known):
        clip = LatentClip(latents=latents, space=tiny_space(), fps=8.0, num_frames=1, source=name)
        save_clip(folder / f"{index}.safetensors", clip)
    try:
        found = find_clips(wanted, LatentFolder(folder), allow_missing=True)
    except ValueError:
        with pytest.raises(ValueError, match=r"match"):
            match_videos(wanted, known, "t")
        return
    expected = {name: info.source for name, info in found.clips.items()}
    assert match_videos(wanted, known, "t") == expected
