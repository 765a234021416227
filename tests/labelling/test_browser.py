"""The page in a real browser: keys, reloads, restarts, raters, broken videos, many clips, looks."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from gtsvj_reward.assets import folder_of
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.judge import load_judge
from gtsvj_reward.labelling import Session, SessionSettings, read_clips
from gtsvj_reward.labelling.fitting import Model
from gtsvj_reward.latents import LatentClip, LatentSpace, save_clip, write_video
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import SEEN, draw_severities, encode_frames
from gtsvj_reward.toy.degradations import degraded
from gtsvj_reward.toy.pipeline import PIPELINE
from gtsvj_reward.toy.raters import compare
from gtsvj_reward.toy.world import FPS, FRAMES, draw_scene
from tests.labelling.browser import launched, served, visitor
from tests.labelling.tiny import empty_files, moving_square

EVIL = "<script>hacked=1</script>"
EVIL_FILE = "<img src=x onerror='hacked=2'>.mp4"


@pytest.fixture(scope="module")
def browser():
    with launched() as opened:
        yield opened


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two groups of three clips that can be played."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        moving_square(folder / f"p{number // 3}" / f"{number % 3}.mp4", seed=number)
    return folder


PROMPTS = ("one red circle drifting", "two blue squares bouncing", "one green triangle orbiting",
           "two yellow circles falling")  # fmt: skip
EACH = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips of the toy world, five of each prompt, with faults: videos, latents, prompts."""
    folder, space = tmp_path_factory.mktemp("world"), LatentSpace.from_vae(load_vae(PIPELINE))
    specs = {}
    rows = ["video,prompt"]
    frames = []
    for number, prompt in enumerate(prompt for prompt in PROMPTS for _ in range(EACH)):
        name = f"{number // EACH}/{number % EACH}.mp4"
        faults = draw_severities(keyed_generator(7, number), SEEN)
        specs[name] = faults
        scene = draw_scene(7, number, text=prompt)
        clip = degraded(scene, faults, keyed_generator(8, number))
        frames.append(clip)
        large = clip.repeat_interleave(5, 1).repeat_interleave(5, 2)
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "videos" / name, large, FPS)
        rows.append(f"{name},{prompt}")
    latents = encode_frames(torch.stack(frames), load_vae(PIPELINE), space)
    for name, clip in zip(specs, latents, strict=True):
        save_clip(
            folder / "latents" / f"{name}.safetensors",
            LatentClip(latents=clip.contiguous(), space=space, fps=FPS, num_frames=FRAMES,
                       source=name),
        )  # fmt: skip
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n")
    return folder, specs


def session_on(folder, out, **settings):
    return Session(out, read_clips(folder), SessionSettings(**{"double_share": 0.0, **settings}))


def answers(out):
    """Labels on disk, in order, undone ones included."""
    lines = (out / "labels.jsonl").read_text().splitlines()
    return [e["label"] for e in map(json.loads, lines) if e["event"] == "answer"]


def playing(visitor):
    """Wait until all clips move."""
    visitor.until("[...document.querySelectorAll('.clip video')].every((v) => v.currentTime > 0.1)")


def test_compare_tie_undo_skip_and_reload_in_the_middle(browser, videos, tmp_path):
    made = session_on(videos, tmp_path)
    with served(made) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        assert "token" not in ann.page.url
        playing(ann)
        for key in "102":
            ann.press(key)
        assert answers(tmp_path) == [1, 0, -1]
        assert ann.counts().startswith("3 by you, 3 in all")
        shown = ann.clips()
        ann.page.reload()
        ann.page.wait_for_selector("#clips .clip")
        assert ann.clips() == shown, "the same pair, and nobody asks for the name again"
        ann.press("u")
        assert made.answered() == 2
        ann.press("1")
        assert ann.clips() == shown
        assert [a.label for a in made.labels.given("compare")] == [1, 0, 1]
        ann.page.keyboard.press("s")
        ann.press("4")
        assert made.skip_counts() == {"too alike": 1}


def test_steps_speed_and_one_clock_for_both(browser, videos, tmp_path):
    with served(session_on(videos, tmp_path)) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        playing(ann)
        times = "[...document.querySelectorAll('.clip video')].map((v) => v.currentTime)"
        ann.page.keyboard.press("ArrowRight")
        first, second = ann.page.evaluate(times)
        assert first == second
        ann.page.keyboard.press("ArrowLeft")
        earlier, _ = ann.page.evaluate(times)
        assert first - earlier == pytest.approx(1 / 8, abs=0.002)
        ann.page.keyboard.press("ArrowUp")
        rates = "[...document.querySelectorAll('.clip video')].map((v) => v.playbackRate)"
        assert ann.page.evaluate(rates) == [2, 2]
        assert ann.page.inner_text("#play").startswith("Play")
        ann.press("1")
        assert ann.page.inner_text("#play").startswith("Pause"), "the next pair plays"
        assert ann.page.evaluate(rates) == [2, 2], "the next pair is as fast"


@contextmanager
def command(videos, out, port):
    """`gtsvj label` in a process of its own, killed at the end; its address."""
    words = ["label", videos, "--out", out, "--port", port, "--double_share", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gtsvj_reward.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        said = ""
        while not (found := re.search(r"label at (\S+:(\d+)\S+)", said)):
            line = process.stdout.readline()
            assert line, f"the page did not start: {said}"
            said += line
        yield found[1], int(found[2])
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_a_killed_server_loses_nothing_and_the_open_page_goes_on(browser, videos, tmp_path):
    out = tmp_path / "labels"
    with visitor(browser, loses_server=True) as ann:
        with command(videos, out, 0) as (address, port):
            ann.come(address, "Ann")
            ann.press("1")
            ann.press("2")
        assert answers(out) == [1, -1]
        ann.page.keyboard.press("0")  # nobody hears it
        ann.page.wait_for_selector("#offline:not([hidden])")
        with command(videos, out, port):
            ann.until("document.getElementById('counts').innerText[0] === '3'")
            assert ann.page.is_hidden("#offline")
            assert answers(out) == [1, -1, 0]
            ann.press("1")
        assert answers(out) == [1, -1, 0, 1]


def test_a_second_rater_whose_name_is_a_script(browser, videos, tmp_path):
    made = session_on(videos, tmp_path, double_share=1.0)
    with served(made) as address:
        with visitor(browser) as ann:
            ann.come(address, "Ann")
            for key in "112":
                ann.press(key)
        with visitor(browser) as evil:
            evil.come(address, EVIL)
            for key in "111":
                evil.press(key)
            evil.page.wait_for_selector("#panel dt")
            assert EVIL in evil.page.locator("#panel dt").all_inner_texts()
            assert evil.page.inner_text("#rater") == EVIL
            assert "Krippendorff" in evil.page.inner_text("#panel")
            assert evil.page.evaluate("typeof hacked") == "undefined"
    assert {a.task.rater for a in made.labels.given("compare")} == {"Ann", EVIL}
    assert [a.task.choice for a in made.labels.given("compare")].count("double") == 3


def test_a_video_that_cannot_be_played_is_skipped_and_does_not_come_again(browser, tmp_path):
    videos = tmp_path / "videos"
    for number in range(3):
        moving_square(videos / f"{number}.mp4", seed=number)
    (videos / EVIL_FILE).write_bytes(b"no video at all")
    made = session_on(videos, tmp_path / "labels")
    broken = made.clips.numbers[EVIL_FILE]
    with served(made) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        while broken not in ann.numbers():
            ann.press("1")
        ann.page.wait_for_selector(".unplayed")
        assert EVIL_FILE in ann.page.inner_text(".unplayed")
        ann.press("s")
        while ann.page.is_hidden("#done"):
            assert broken not in ann.numbers()
            ann.press("0")
        ann.page.click("#list")
        ann.page.fill("#search", "onerror")
        ann.until("document.getElementById('found').innerText.includes('of 1')")
        assert ann.page.inner_text("#rows td") == EVIL_FILE
        assert ann.page.evaluate("typeof hacked") == "undefined"
        ann.errors = [e for e in ann.errors if "416" not in e]
    assert made.skip_counts() == {"broken": 1}
    assert made.labels.broken() == {EVIL_FILE}


def test_ten_thousand_clips_are_listed_without_delay(browser, tmp_path):
    videos = empty_files(tmp_path / "videos", groups=100, each=100)
    with served(session_on(videos, tmp_path / "labels")) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        ann.page.evaluate(
            """() => {
              const started = performance.now();
              document.getElementById("list").click();
              new MutationObserver(() => { window.waited = performance.now() - started; })
                .observe(document.getElementById("rows"), { childList: true });
            }"""
        )
        ann.until("window.waited !== undefined")
        assert ann.page.evaluate("window.waited") < 1500
        assert "of 10000 clips" in ann.page.inner_text("#found")
        assert ann.page.locator("#rows tr").count() <= 200
        ann.page.click("#later")
        ann.until("document.getElementById('found').innerText.startsWith('201')")


def test_rating_with_keys_alone(browser, world, tmp_path):
    clips = read_clips(world[0] / "videos", prompts=world[0] / "prompts.csv")
    settings = SessionSettings(kind="rate", aspects=("clear", "calm", "steady"))
    made = Session(tmp_path / "labels", clips, settings)
    with served(made) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        playing(ann)
        ann.page.keyboard.press("4")
        ann.page.keyboard.press("3")
        ann.page.keyboard.press("u")  # the last rating of this clip
        ann.page.keyboard.press("2")
        assert ann.page.inner_text(".aspect.current .name") == "steady"
        ann.picture(tmp_path / "rate.png")
        ann.press("0")
        (answer,) = made.labels.given("rate")
        assert answer.scores == {"clear": 4, "calm": 2}
        ann.press("u")
        for _ in range(6):
            ann.page.keyboard.press("Tab")
        assert ann.page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert made.labels.given("rate") == []


CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.createElement("i");
  document.body.append(probe);
  const value = (name) => {
    probe.style.color = `var(--${name})`;
    return light(getComputedStyle(probe).color);
  };
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const found = [];
  for (const ground of ["ground", "card"])
    for (const ink of ["text", "muted", "accent", "bad"])
      found.push([ink, ground, ratio(value(ink), value(ground))]);
  probe.remove();
  return found;
}"""
"""WCAG's contrast of each ink on each ground."""

INSIDE = """() => {
  const wide = document.documentElement.scrollWidth > innerWidth;
  const low = [...document.querySelectorAll(".stage button")]
    .filter((button) => button.offsetParent && button.getBoundingClientRect().bottom > innerHeight);
  return [wide, low.map((button) => button.textContent)];
}"""
"""Whether the page scrolls sideways, and buttons below the window."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_and_everything_has_a_name(browser, videos, tmp_path, scheme):
    made = session_on(videos, tmp_path, question="Which one moves as it should?")
    with served(made) as address, visitor(browser, color_scheme=scheme) as ann:
        ann.come(address, "Ann")
        assert ann.page.get_attribute("html", "data-theme") == scheme
        for ink, ground, ratio in ann.page.evaluate(CONTRAST):
            assert ratio > 4.5, f"{ink} on {ground}: {ratio:.2f}"
        for size in ((1280, 720), (820, 1180), (1180, 820), (390, 844)):
            ann.page.set_viewport_size({"width": size[0], "height": size[1]})
            wide, low = ann.page.evaluate(INSIDE)
            assert not wide, size
            assert not low or size[0] < 800, (size, low)
        nameless = ann.page.evaluate(
            "[...document.querySelectorAll('button, input, select, video')].filter((e) =>"
            " !(e.innerText || e.textContent || e.getAttribute('aria-label') || e.labels?.length))"
            ".map((e) => e.outerHTML)"
        )
        assert nameless == []
        ann.page.keyboard.press("?")
        assert ann.page.is_visible("#help-dialog")
        ann.page.keyboard.press("1")
        assert made.answered() == 0, "keys of the page rest while a dialog is open"
        ann.page.keyboard.press("Escape")
        ann.page.click("#theme")
        assert ann.page.get_attribute("html", "data-theme") != scheme


@pytest.mark.slow
def test_a_judge_learns_in_front_of_the_rater(browser, world, tmp_path):
    """Forty answers with a judge; the pictures of the documentation come from here."""
    folder, faults = world
    clips = read_clips(
        folder / "videos", prompts=folder / "prompts.csv", latents=folder / "latents"
    )
    judge = load_judge(folder_of("gtsvj-toy"))
    settings = SessionSettings(choice="active", random_share=0.5, double_share=0.4)
    made = Session(tmp_path / "labels", clips, settings, Model(judge, clips))
    made.worker.wait()
    generator = keyed_generator(9)
    with served(made) as address, visitor(browser) as ann:
        ann.come(address, "Ann")
        for rater in ("Ben",) * 12 + ("Ann",) * 28:
            task = made.task(rater)
            left, right = (faults[name] for name in task.clips)
            label = compare(left, right, generator).label
            if rater == "Ann":
                ann.press({1: "1", 0: "0", -1: "2"}[label])
            else:
                made.answer(rater, task.ticket, label=label)
            made.worker.wait()
        ann.page.reload()
        ann.until("document.querySelectorAll('.thumbs video').length === 6")
        ann.until(
            "[...document.querySelectorAll('.thumbs video, .clip video')]"
            ".every((v) => v.readyState >= 2)"
        )
        assert "fitted to 40 answers" in ann.page.inner_text("#panel")
        assert "Krippendorff" in ann.page.inner_text("#panel")
        assert ann.page.is_visible("#panel .figure")
        ann.page.keyboard.press("p")
        ann.picture(tmp_path / "compare.png")
        ann.page.click("#theme")
        ann.page.keyboard.press("s")
        ann.picture(tmp_path / "dark.png")
        ann.page.keyboard.press("Escape")
        ann.page.click("#checkpoint")
        written = "document.getElementById('checkpoint').innerText.startsWith('Written')"
        ann.until(written)
        made.answer("Ben", made.task("Ben").ticket, label=0)
        ann.until("[...document.querySelectorAll('.raters dd')].some((e) => e.innerText === '13')")
        assert ann.page.evaluate(written), "a new drawing of the numbers keeps what the button says"
    loaded = load_judge(tmp_path / "labels" / "judge")
    assert loaded.config.training["preference: pairs"] == 40
