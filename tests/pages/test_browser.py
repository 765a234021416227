"""Reports in a real browser: clips play, curves follow, cards are sorted, no name runs as code."""

from dataclasses import replace

import pytest

from gtsvj_reward.annotations import Rating, Ratings
from gtsvj_reward.evaluation import (
    ScoreTable,
    evaluate_comparisons,
    evaluate_ratings,
    write_evaluation,
    write_ratings,
)
from gtsvj_reward.latents import LatentSpace, encode_folder
from gtsvj_reward.scoring.pictures import Sources
from gtsvj_reward.scoring.report import write_report
from gtsvj_reward.scoring.table import ScoredClip
from tests.evaluation.made_up import FAST, made_up, made_up_scores
from tests.labelling.browser import launched, visitor
from tests.labelling.tiny import moving_square

NAMES = ("low/a<img src=x onerror=hacked=1>.mp4", "low/b.mp4", "high/c.mp4")
SHOWN = "[...document.querySelectorAll('.clip')].filter((c) => !c.hidden).map((c) => c.id).join()"
PLAYING = "[...document.querySelectorAll('video')].some((v) => v.currentTime > 0.1)"


@pytest.fixture(scope="module")
def browser():
    with launched() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_vae):
    """A report of three clips of 9 frames, at 8 a second."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate(NAMES):
        moving_square(folder / "videos" / name, seed=number)
    encode_folder(folder / "videos", folder / "latents", vae=tiny_vae, fps=8, height=32, width=48,
                  num_frames=9, space=LatentSpace.from_vae(tiny_vae), progress=False)  # fmt: skip
    clips = [
        ScoredClip(
            video=name, latents=f"{name}.safetensors", reward=float(number), raw=float(number),
            aspects={"clear": -float(number)}, trajectory=[0.0, number, 2.0 * number],
            aspect_trajectory={"clear": [-float(number)] * 3}, untrained_geometry=None,
            uncertainty=0.5,
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    clips[1] = replace(clips[1], untrained_geometry="fps 60 outside 8..30")
    places = Sources(latents=folder / "latents", videos=folder / "videos", temporal_patch=1)
    spread = {"score": (-1.0, 1.0)}
    return write_report(clips, places, folder, title="clips", spread=spread, progress=False)


def test_clips_play_and_the_line_follows(browser, page):
    with visitor(browser) as ann:
        ann.page.goto(page.as_uri())
        ann.page.locator(".clip").first.scroll_into_view_if_needed()
        ann.until(PLAYING)
        ann.until("document.querySelector('.trajectory').classList.contains('moving')")
        card = ann.page.locator("#clip-1")
        drawn = card.locator("[data-curve=score] svg").bounding_box()
        # A click at the right end: 38 and 8 of 340 units are outside the axis, of 9 frames.
        ann.page.mouse.click(drawn["x"] + drawn["width"] * 331 / 340, drawn["y"] + 30)
        ann.until("document.querySelector('#clip-1 video').paused")
        time = ann.page.evaluate("document.querySelector('#clip-1 video').currentTime")
        assert time == pytest.approx(9 / 8, abs=0.05)
        assert card.locator(".now").inner_text() == "0.62 to 1.12 s: +4.000"
        head = card.locator("[data-curve=score] .head")
        assert float(head.get_attribute("x1")) == pytest.approx(38 + 294 * time / 1.125, abs=0.5)


def test_cards_are_sorted_chosen_and_searched(browser, page):
    with visitor(browser) as ann:
        ann.page.goto(page.as_uri())
        assert ann.page.evaluate(SHOWN) == "clip-1,clip-2,clip-3"
        ann.page.check("[name=up]")
        assert ann.page.evaluate(SHOWN) == "clip-3,clip-2,clip-1"
        ann.page.select_option("[name=key]", "clear")
        assert ann.page.evaluate(SHOWN) == "clip-1,clip-2,clip-3"
        ann.page.select_option("[name=group]", "low")
        assert ann.page.evaluate(SHOWN) == "clip-2,clip-3"
        ann.page.check("[name=untrained]")
        assert ann.page.evaluate(SHOWN) == "clip-2"
        assert ann.page.inner_text("[name=found]") == "1 of 3 cards"
        ann.page.uncheck("[name=untrained]")
        ann.page.fill("[name=search]", "onerror")
        assert ann.page.evaluate(SHOWN) == "clip-3"
        ann.page.select_option("[name=curve]", "clear")
        assert ann.page.locator("#clip-3 [data-curve=clear]").is_visible()
        assert not ann.page.locator("#clip-3 [data-curve=score]").is_visible()
        assert ann.page.evaluate("typeof hacked") == "undefined"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_visitors_until_it_is_changed(browser, page, tmp_path, scheme):
    with visitor(browser, color_scheme=scheme, viewport={"width": 400, "height": 700}) as ann:
        ann.page.goto(page.as_uri())
        ground = "getComputedStyle(document.body).backgroundColor"
        first = ann.page.evaluate(ground)
        assert first == {"light": "rgb(243, 244, 248)", "dark": "rgb(14, 17, 24)"}[scheme]
        ann.page.click("#theme")
        assert ann.page.evaluate(ground) != first
        width = ann.page.evaluate("document.documentElement.scrollWidth")
        assert width == 400, "the page is wider than a telephone"


def test_an_evaluation_shows_the_pairs_it_gets_wrong(browser, tmp_path):
    data = made_up(24, prompts=6, dimensions=("VQ", "overall"))
    for number, name in enumerate(data.videos()):
        moving_square(tmp_path / name, seed=number)
    made = made_up_scores(data, aspects=("clear",))
    off = {"uncertainty": dict.fromkeys(data.videos(), 0.25)}
    table = replace(made, columns={**made.columns, **off})
    result = evaluate_comparisons(data, table, settings=FAST)
    page = write_evaluation(result, data, table, tmp_path / "out", videos=tmp_path)
    [overall] = [item for item in result.dimensions if item.dimension == "overall"]
    found = overall.accuracies["without_ties"]
    wrong = round((1 - found.accuracy) * found.pairs)
    with visitor(browser) as ann:
        ann.page.goto(page.as_uri())
        assert f"{100 * found.accuracy:.2f}%" in ann.page.inner_text(".figures")
        cards = ann.page.locator(".clip")
        assert 0 < cards.count() <= min(12, wrong)
        cards.first.scroll_into_view_if_needed()
        ann.until(PLAYING)
        assert cards.first.locator("video").count() == 2
        assert cards.first.locator("small").all_inner_texts() == [" ± 0.250"] * 2
        gaps = "[...document.querySelectorAll('.clip')].map((c) => JSON.parse(c.dataset.values)[0])"
        largest_first = ann.page.evaluate(gaps)
        ann.page.check("[name=up]")
        assert ann.page.evaluate(gaps) == sorted(largest_first) != largest_first
        pair = cards.first.get_attribute("data-group")
        ann.page.select_option("[name=group]", pair)
        shown = ann.page.locator(".clip:not([hidden])")
        assert 0 < shown.count() < cards.count()
        assert not ann.page.evaluate(
            "[...document.querySelectorAll('svg')].some((s) => !s.querySelector('.line, .bar'))"
        )


def test_ratings_show_what_was_scored_most_wrongly(browser, tmp_path):
    # Ratings 0, 1, 2, 0, ...; scores follow them but for the first clip, whose name is a script.
    evil = "<img src=x onerror=hacked=1>.mp4"
    names = [evil, *(f"{number}.mp4" for number in range(1, 12))]
    for number, name in enumerate(names):
        moving_square(tmp_path / name, seed=number)
    scores = {name: float(n % 3) + 0.01 * n for n, name in enumerate(names)} | {evil: 9.0}
    rows = tuple(
        Rating(row=str(n), video=name, scores={"<b>clear": float(n % 3)})
        for n, name in enumerate(names)
    )
    ratings = Ratings(name="<i>people", rows=rows, aspects=("<b>clear",))
    table = ScoreTable(name="scorer", columns={"aspect:<b>clear": scores})
    result = evaluate_ratings(ratings, table, settings=FAST)
    page = write_ratings(result, ratings, table, tmp_path / "out", videos=tmp_path)
    with visitor(browser) as ann:
        ann.page.goto(page.as_uri())
        assert f"{result.aspects[0].spearman:+.2f}" in ann.page.inner_text(".figures")
        spread = ann.page.locator(".card", has_text="means should rise").locator("tbody tr")
        # Means by hand: (9 + 0.03 + 0.06 + 0.09) / 4, 1 + 0.01 * (1 + 4 + 7 + 10) / 4, and 2.065.
        assert [row.locator("td").nth(1).inner_text() for row in spread.all()] == [
            "2.295", "1.055", "2.065",
        ]  # fmt: skip
        first = ann.page.locator(".clip").first
        assert first.locator(".file").inner_text() == evil
        assert "scored higher than people rated it" in first.inner_text()
        ann.page.fill("[name=search]", "onerror")
        assert ann.page.inner_text("[name=found]").startswith("1 of")
        first.scroll_into_view_if_needed()
        ann.until(PLAYING)
        assert ann.page.evaluate("typeof hacked") == "undefined"
        assert not ann.page.evaluate(
            "[...document.querySelectorAll('svg')].some((s) => !s.querySelector('.line, .bar'))"
        )
