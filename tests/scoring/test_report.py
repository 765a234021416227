"""Pictures of scored clips, and the page that shows them."""

import shutil
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from json import loads

import av
import pytest

from gtsvj_reward.judge import Aspect, JudgeConfig
from gtsvj_reward.latents import LatentSpace, encode_folder
from gtsvj_reward.latents.store import clip_info, load_clip, save_clip
from gtsvj_reward.scoring.pictures import Sources, source_frames
from gtsvj_reward.scoring.report import (
    best_first,
    shown_ranks,
    training_spread,
    write_report,
)
from gtsvj_reward.scoring.table import ScoredClip
from tests.scoring.test_encoding import write_videos
from tests.scoring.test_folder import write_clip
from tests.tiny import tiny_space

NASTY = 'a"<script>alert(1)<b>&$x^$'


class Page(HTMLParser):
    """Tags of a page, with their attributes; and the names on its cards."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.names = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][1].get("class") == "file" and data.strip():
            self.names.append(data)

    def all(self, wanted, css=None):
        return [
            attributes
            for tag, attributes in self.tags
            if tag == wanted and css in (None, *attributes.get("class", "").split())
        ]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, tiny_vae):
    """Folders of four tiny videos and of their latents."""
    folder = tmp_path_factory.mktemp("encoded")
    write_videos(folder / "videos", ("p", "q", "r", NASTY))
    encode_folder(folder / "videos", folder / "latents", vae=tiny_vae, fps=8, height=32, width=48,
                  space=LatentSpace.from_vae(tiny_vae), frames_fps=8, progress=False)  # fmt: skip
    return folder


def scored(*, uncertainty=None, **aspects):
    """Rewards of the four clips, of which p and q are equal; r falls at its end."""
    rewards = {NASTY: 2.0, "q": 1.0, "p": 1.0, "r": -3.0}
    return [
        ScoredClip(
            video=name,
            latents=f"{name}.safetensors",
            reward=reward,
            raw=reward / 2,
            aspects={aspect: reward + shift for aspect, shift in aspects.items()},
            trajectory=[reward / 2, reward / 2, -4.0 if name == "r" else reward / 2],
            aspect_trajectory={aspect: [reward + shift] * 3 for aspect, shift in aspects.items()},
            untrained_geometry="fps 60 outside 8..30" if name == "r" else None,
            uncertainty=uncertainty,
        )
        for name, reward in rewards.items()
    ]


def sources(encoded):
    return Sources(latents=encoded / "latents", videos=encoded / "videos", temporal_patch=1)


def report(encoded, out, clips, **options):
    return write_report(
        clips, sources(encoded), out, title="a <title>", progress=False, **options
    ).read_text()


def test_every_name_is_escaped(encoded, tmp_path):
    clips = scored(**{"clear<img src=x onerror=y>": 1.0})
    text = report(encoded, tmp_path, clips)
    page = Page(text)
    assert len(page.all("script")) == 1, "the page's own"
    assert "alert(1)<b>" not in text
    assert page.names == [NASTY, "p", "q", "r"]
    assert not page.all("img")
    assert len(page.all("video")) == 4
    assert "a &lt;title&gt;" in text
    assert loads(page.all("article")[0]["data-values"]) == [2.0, 1.0, 3.0, NASTY]


def test_clips_without_a_video_have_a_card_and_no_video(encoded, tmp_path, tiny_vae):
    """Negatives that a generator made lie beside what was encoded."""
    shutil.copytree(encoded / "latents", tmp_path / "latents")
    path = tmp_path / "latents" / "r.safetensors"
    save_clip(path, replace(load_clip(path), settings={"made_from": []}))
    places = replace(sources(encoded), latents=tmp_path / "latents")
    text = write_report(scored(), places, tmp_path, title="t", progress=False).read_text()
    assert len(Page(text).all("video")) == 3
    assert len(Page(text).all("svg", "trajectory")) == 4
    assert text.count("No video: the latent file names none") == 1


def test_the_page_stands_alone(encoded, tmp_path):
    page = Page(report(encoded, tmp_path / "new" / "report", scored()))
    assert [path.name for path in (tmp_path / "new" / "report").iterdir()] == ["index.html"]
    for attributes in page.all("video"):
        kind, data = attributes["src"].split(",")
        assert kind == "data:video/mp4;base64"
        with av.open(BytesIO(b64decode(data))) as opened:
            assert sum(1 for _ in opened.decode(video=0)) == 9
    assert not page.all("link")
    assert not any("src" in attributes for attributes in page.all("script"))


def test_ends_are_shown_and_the_rest_is_counted(encoded, tmp_path):
    text = report(encoded, tmp_path, scored(), top=1)
    assert Page(text).names == [NASTY, "r"]
    assert "2 in between are not shown" in text
    assert "All are shown" in report(encoded, tmp_path, scored(), top=2)
    assert "outside what was trained on: do not rely on these</dt><dd>1</dd>" in text
    assert "Not trained on: fps 60 outside 8..30" in text
    with pytest.raises(ValueError, match="`top` >= 1"):
        report(encoded, tmp_path, scored(), top=0)


def test_all_curves_share_an_axis_that_holds_the_training_spread(encoded, tmp_path):
    """By hand: scores from -4 to 1 and a spread to 3 need an axis of 7, with 6% at each end."""
    page = Page(report(encoded, tmp_path, scored(), spread={"score": (0.0, 3.0)}))
    plots = page.all("svg", "trajectory")
    assert len(plots) == 4
    assert len(page.all("rect", "band")) == 1 + 4, "the histogram's and the curves'"
    low, high = -4 - 0.06 * 7, 3 + 0.06 * 7
    height = 132 - 8 - 20
    expected = [8 + height * (high - 3) / (high - low), height * 3 / (high - low)]
    for box in page.all("rect", "band")[1:]:
        assert [float(box["y"]), float(box["height"])] == pytest.approx(expected, abs=0.01)


def test_clips_that_are_all_alike_have_no_histogram(encoded, tmp_path):
    alike = [replace(clip, reward=1.0, raw=0.5) for clip in scored()]
    assert not Page(report(encoded, tmp_path, alike)).all("rect", "bar")
    # Four clips in six bins: two are at 1.0, so that three bins have a bar.
    assert len(Page(report(encoded, tmp_path, scored())).all("rect", "bar")) == 3


def test_uncertainty_is_a_number_a_bar_and_a_key(encoded, tmp_path):
    text = report(encoded, tmp_path, scored(uncertainty=0.25), top=1)
    assert "+2.000<small> ± 0.250</small>" in text
    assert len(Page(text).all("i", "spread")) == 2
    assert [o["value"] for o in Page(text).all("option")] == [
        "reward",
        "raw",
        "uncertainty",
        "name",
    ]
    assert loads(Page(text).all("article")[0]["data-values"]) == [2.0, 1.0, 0.25, NASTY]
    without = Page(report(encoded, tmp_path, scored(), top=1))
    assert not without.all("i", "spread")


def test_the_spread_of_training_by_hand():
    config = JudgeConfig(
        base_model="x",
        latent_space=tiny_space(),
        stage="aspects",
        aspects=(Aspect(name="clear", low=1.0, high=5.0),),
        reward_mean=0.5,
        reward_std=0.2,
        aspect_mean=(0.5,),
        aspect_covariance=((0.04,),),
    )
    found = training_spread(config)
    assert found["score"] == pytest.approx((0.3, 0.7))
    assert found["clear"] == pytest.approx((1 + 4 * 0.3, 1 + 4 * 0.7))


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("top", [1, 2, 5, 20])
def test_shown_ranks_are_the_ends_without_repeats(count, top):
    expected = [r for r in range(1, count + 1) if r <= top or r > count - top]
    assert shown_ranks(count, top) == expected


def test_aspects_have_a_line_over_the_range_of_all_clips_and_a_curve(encoded, tmp_path):
    page = Page(report(encoded, tmp_path, scored(clear=1.0, motion=0.0), top=1))
    # Rewards run from -3 to 2, so `clear` from -2 to 3, over hidden clips as well; 6% at each end.
    places = [
        float(i["style"].removeprefix("left:").removesuffix("%")) for i in page.all("i", "at")
    ]
    high, low = 100 * 5.3 / 5.6, 100 * 0.3 / 5.6
    assert places == pytest.approx([high] * 3 + [low] * 3, abs=0.01)
    keys, curves = ["reward", "raw", "clear", "motion", "name"], ["score", "clear", "motion"]
    assert [option["value"] for option in page.all("option")] == keys + curves
    for article in page.all("article"):
        assert len(loads(article["data-values"])) == len(keys)
    drawn = [(d["data-curve"], "hidden" in d) for d in page.all("div") if "data-curve" in d]
    assert drawn == [("score", False), ("clear", True), ("motion", True)] * 2


def test_best_first_without_statistics_is_by_the_raw_score():
    clips = [replace(clip, reward=None) for clip in scored()]
    ordered = best_first(clips)
    assert [clip.video for clip in ordered] == [NASTY, "p", "q", "r"]
    assert all(a.raw >= b.raw for a, b in pairwise(ordered))


def test_clips_that_nothing_is_known_of_cannot_be_drawn(tmp_path):
    write_clip(tmp_path, "x")
    write_clip(tmp_path, "y", source="y.mp4")
    with pytest.raises(ValueError, match="names no source video"):
        source_frames(clip_info(tmp_path / "x.safetensors"), tmp_path)
    with pytest.raises(ValueError, match=r"does not record how its video was read, fps, height"):
        source_frames(clip_info(tmp_path / "y.safetensors"), tmp_path)
