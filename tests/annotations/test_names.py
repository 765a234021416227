"""What of a name says which video it is, and what it must not hide."""

import unicodedata

import pytest
from hypothesis import given, strategies as st

from gtsvj_reward.annotations import read_comparisons
from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.annotations.names import NameIndex, identity
from gtsvj_reward.evaluation import evaluate_comparisons, read_scores
from gtsvj_reward.scoring.groups import folder_groups, read_rewards
from gtsvj_reward.scoring.ranking import rank_clips
from tests.annotations.rows import write_csv

COMPOSED, DECOMPOSED = "caf\u00e9.mp4", "cafe\u0301.mp4"
SAME = [
    ("a/x.mp4", "./a//x.mp4"),
    ("a/x.mp4", "/a/x.mp4"),
    ("a/x.mp4", "a\\x.mp4"),
    (COMPOSED, DECOMPOSED),
    ("https://h/caf%C3%A9.mp4", "https://h/cafe%CC%81.mp4"),
    ("https://h/watch?v=A&list=B", "http://H/watch?list=B&v=A#t=10"),
]
OTHER = [
    ("https://www.youtube.com/watch?v=A", "https://www.youtube.com/watch?v=B"),
    ("https://drive.google.com/uc?id=1a", "https://drive.google.com/uc?id=1b"),
    ("https://h/v?A", "https://h/v?B"),
    ("https://one/x.mp4", "https://two/x.mp4"),
    ("https://h/a/x.mp4", "https://h/b/a/x.mp4"),
    ("x.mp4", "x.webm"),
    ("x.mp4", "X.mp4"),
    ("v1.5", "v1.6"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_names_of_one_video(first, second):
    assert identity(first) == identity(second)
    assert match_videos([first], [second], "t") == {first: second}


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_names_of_two_videos(first, second):
    assert identity(first) != identity(second)
    assert match_videos([first], [second], "t") == {}
    assert match_videos([second], [first], "t") == {}


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("x", ["x.mp4", "a/x.mp4"], ["x.mp4"]),
        ("x.mp4", ["x", "a/x.mp4"], ["x"]),
        ("x", ["x.mp4", "x.gif"], ["x.gif", "x.mp4"]),
        ("x", ["x", "x.mp4"], ["x"]),
        ("x", ["b/x.gif", "a/x"], ["a/x", "b/x.gif"]),
        ("C:\\v\\a\\x.mp4", ["a/x.mp4", "b/x.mp4"], ["a/x.mp4"]),
        ("https://h/d/uc?id=1", ["uc", "https://h/d/uc?id=2"], ["uc"]),
        ("https://h/d/uc?id=1", ["https://h/d/uc?id=1&x=2", "https://h/d/uc"], ["https://h/d/uc"]),
    ],
)
def test_the_best_match_and_all_that_are_as_good(name, known, expected):
    assert NameIndex(known).matches(name) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"), max_size=9))
def test_unicode_forms_never_matter(text):
    names = [f"a/{unicodedata.normalize(form, text)}b.mp4" for form in ("NFC", "NFD")]
    if "://" not in names[0]:
        assert identity(names[0]) == identity(names[1])


@pytest.mark.parametrize(("first", "second"), SAME)
def test_a_clip_is_not_compared_with_itself(tmp_path, first, second):
    rows = [
        {"video_a": "y", "video_b": "z", "label": 1},
        {"video_a": first, "video_b": second, "label": 1},
    ]
    path = write_csv(tmp_path / "x.csv", rows)
    with pytest.raises(ValueError, match=r"the same video as `video_a`.* in rows x.csv row 2"):
        read_comparisons(path)


def test_two_urls_have_each_their_own_score(tmp_path):
    urls = [f"https://drive.google.com/uc?id=1{letter}" for letter in "abc"]
    pairs = [{"video_a": urls[0], "video_b": other, "label": 1} for other in urls[1:]]
    comparisons = read_comparisons(write_csv(tmp_path / "pairs.csv", pairs))
    rows = [
        {"video": url, "score": score} for url, score in zip(urls, (0.9, 0.1, 0.8), strict=True)
    ]
    scores = read_scores(write_csv(tmp_path / "scores.csv", rows))
    assert scores.columns["score"] == dict(zip(urls, (0.9, 0.1, 0.8), strict=True))
    assert match_videos(urls, urls, "t") == dict(zip(urls, urls, strict=True))
    scores = read_scores(write_csv(tmp_path / "scores.csv", rows[:2]))
    with pytest.raises(ValueError, match=r"1 of 3 videos of pairs\.csv have no score .*id=1c"):
        evaluate_comparisons(comparisons, scores)


def test_one_video_has_one_row(tmp_path):
    rows = [{"video": COMPOSED, "score": 1}, {"video": DECOMPOSED, "score": 2}]
    path = write_csv(tmp_path / "x.csv", rows)
    with pytest.raises(ValueError, match="rows repeat a video"):
        read_scores(path)
    with pytest.raises(ValueError, match="repeat a video"):
        read_rewards(path, "score")


def test_ranking_knows_videos_by_more_than_their_letters():
    rewards = {"a\\x.mp4": 1.0, f"a/{COMPOSED}": 2.0}
    ranking = rank_clips(rewards, {"a/x.mp4": "p", f"a/{DECOMPOSED}": "p"})
    assert [clip.video for clip in ranking.clips] == [f"a/{COMPOSED}", "a\\x.mp4"]
    assert folder_groups(list(rewards)) == {"a\\x.mp4": "a", f"a/{COMPOSED}": "a"}
