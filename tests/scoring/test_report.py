"""Pictures of scored clips, and the page that shows them."""

import re
import shutil
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from json import loads

import pytest
from PIL import Image

from gtsvj_reward.latents import LatentSpace, encode_folder
from gtsvj_reward.latents.store import clip_info, load_clip, save_clip
from gtsvj_reward.scoring.pictures import Sources, plot_scores, source_frames
from gtsvj_reward.scoring.report import best_first, shown_ranks, write_report
from gtsvj_reward.scoring.table import ScoredClip
from tests.scoring.test_encoding import write_videos
from tests.scoring.test_folder import write_clip

NASTY = 'a"<script>alert(1)<b>&$x^$'


class Page(HTMLParser):
    """Tags of a page, with their attributes and the text of headings."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.headings = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "h2" and data.strip():
            self.headings.append(data)

    def all(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, tiny_vae):
    """Folders of four tiny videos and of their latents."""
    folder = tmp_path_factory.mktemp("encoded")
    write_videos(folder / "videos", ("p", "q", "r", NASTY))
    encode_folder(folder / "videos", folder / "latents", vae=tiny_vae, fps=8, height=32, width=48,
                  space=LatentSpace.from_vae(tiny_vae), frames_fps=8, progress=False)  # fmt: skip
    return folder


def scored(**aspects):
    """Rewards of the four clips, of which p and q are equal."""
    rewards = {NASTY: 2.0, "q": 1.0, "p": 1.0, "r": -3.0}
    return [
        ScoredClip(
            video=name,
            latents=f"{name}.safetensors",
            reward=reward,
            raw=reward / 2,
            aspects={aspect: reward + shift for aspect, shift in aspects.items()},
            trajectory=[reward / 2] * 3,
            aspect_trajectory={},
            untrained_geometry="fps 60 outside 8..30" if name == "r" else None,
        )
        for name, reward in rewards.items()
    ]


def sources(encoded):
    return Sources(latents=encoded / "latents", videos=encoded / "videos", temporal_patch=1)


def report(encoded, out, clips, **options):
    return write_report(clips, sources(encoded), out, title="a <title>", **options).read_text()


def test_every_name_is_escaped(encoded, tmp_path):
    clips = scored(**{"clear<img src=x onerror=y>": 1.0})
    text = report(encoded, tmp_path, clips)
    page = Page(text)
    assert len(page.all("script")) == 1, "the page's own"
    assert "alert(1)<b>" not in text
    assert page.headings == ["1. " + NASTY, "2. p", "3. q", "4. r"]
    assert not any("onerror" in attributes for attributes in page.all("img"))
    assert len(page.all("img")) == 4
    assert "a &lt;title&gt;" in text
    assert loads(page.all("article")[0]["data-values"]) == [2.0, 1.0, 3.0, NASTY]


def test_clips_without_a_video_have_a_card_and_no_picture(encoded, tmp_path, tiny_vae):
    """Negatives that a generator made lie beside what was encoded."""
    shutil.copytree(encoded / "latents", tmp_path / "latents")
    path = tmp_path / "latents" / "r.safetensors"
    save_clip(path, replace(load_clip(path), settings={"made_from": []}))
    places = replace(sources(encoded), latents=tmp_path / "latents")
    text = write_report(scored(), places, tmp_path, title="t").read_text()
    assert len(Page(text).all("img")) == 3
    assert text.count("No picture: its file names no video") == 1
    drawn = plot_scores(scored(), places, tmp_path / "plots")
    assert sorted(file.name for file in drawn) == sorted(
        f"{name}.safetensors.png" for name in ("p", "q", NASTY)
    )


def test_the_page_stands_alone(encoded, tmp_path):
    page = Page(report(encoded, tmp_path / "new" / "report", scored()))
    assert [path.name for path in (tmp_path / "new" / "report").iterdir()] == ["index.html"]
    for attributes in page.all("img"):
        kind, data = attributes["src"].split(",")
        assert kind == "data:image/png;base64"
        with Image.open(BytesIO(b64decode(data))) as picture:
            assert picture.size[0] > 1000
    assert not page.all("link")
    assert not any("src" in attributes for attributes in page.all("script"))


def test_ends_are_shown_and_the_rest_is_counted(encoded, tmp_path):
    text = report(encoded, tmp_path, scored(), top=1)
    assert Page(text).headings == ["1. " + NASTY, "4. r"]
    assert "2 in between are not shown" in text
    assert "all are shown" in report(encoded, tmp_path, scored(), top=2)
    assert "1 clips are of a geometry that the judge was not trained on" in text
    assert "Not trained on: fps 60 outside 8..30" in text
    with pytest.raises(ValueError, match="`top` >= 1"):
        report(encoded, tmp_path, scored(), top=0)


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("top", [1, 2, 5, 20])
def test_shown_ranks_are_the_ends_without_repeats(count, top):
    expected = [r for r in range(1, count + 1) if r <= top or r > count - top]
    assert shown_ranks(count, top) == expected


def test_aspects_are_a_table_with_bars_over_the_range_of_all_clips(encoded, tmp_path):
    page = Page(report(encoded, tmp_path, scored(clear=1.0, motion=0.0), top=1))
    meters = page.all("meter")
    # Rewards run from -3 to 2, so `clear` from -2 to 3, over hidden clips as well.
    assert [(m["min"], m["max"], m["value"]) for m in meters] == [
        ("-2.0", "3.0", "3.0"),
        ("-3.0", "2.0", "2.0"),
        ("-2.0", "3.0", "-2.0"),
        ("-3.0", "2.0", "-3.0"),
    ]
    options = re.findall("<option>(.*?)</option>", (tmp_path / "index.html").read_text())
    assert options == ["reward", "raw", "clear", "motion", "name"]
    for article in page.all("article"):
        assert len(loads(article["data-values"])) == len(options)


def test_best_first_without_statistics_is_by_the_raw_score():
    clips = [replace(clip, reward=None) for clip in scored()]
    ordered = best_first(clips)
    assert [clip.video for clip in ordered] == [NASTY, "p", "q", "r"]
    assert all(a.raw >= b.raw for a, b in pairwise(ordered))


def test_pictures_are_energies_or_scores(encoded, tmp_path, monkeypatch):
    from gtsvj_reward.scoring import pictures

    drawn = []

    def note(frames, lines, **options):
        drawn.append((len(frames), lines, options))
        return options["path"]

    monkeypatch.setattr(pictures, "plot_trajectory", note)
    plot_scores(scored(), sources(encoded), tmp_path)
    plot_scores(scored(clear=0.0), sources(encoded), tmp_path)
    assert [frames for frames, _, _ in drawn] == [9] * 8
    assert drawn[0][1]["energy"].tolist() == [-1.0] * 3
    assert drawn[4][1]["score"].tolist() == [1.0] * 3
    assert [options["path"].name for _, _, options in drawn[:2]] == [
        f"{NASTY}.safetensors.png",
        "q.safetensors.png",
    ]
    assert drawn[0][2]["title"].endswith("$x^$: mean energy -1.000")


def test_clips_that_nothing_is_known_of_cannot_be_drawn(tmp_path):
    write_clip(tmp_path, "x")
    write_clip(tmp_path, "y", source="y.mp4")
    with pytest.raises(ValueError, match="names no source video"):
        source_frames(clip_info(tmp_path / "x.safetensors"), tmp_path)
    with pytest.raises(ValueError, match=r"does not say how its video was read, fps, height"):
        source_frames(clip_info(tmp_path / "y.safetensors"), tmp_path)
