"""The demo's page: what was measured in this run, with clips that play; it needs no network."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from gtsvj_reward import pages
from gtsvj_reward.demo.candidates import GENERATION_STEPS
from gtsvj_reward.demo.chart import gain_bars, unrest_dots
from gtsvj_reward.demo.clips import COMPRESSED, FPS, SIZE
from gtsvj_reward.demo.compare import Comparison
from gtsvj_reward.demo.report import CANNOT, percent, table_rows
from gtsvj_reward.demo.story import Choice, Story
from gtsvj_reward.latents import read_video, write_video
from gtsvj_reward.plotting import plot_film_strips
from gtsvj_reward.toy.measures import colour_unrest
from gtsvj_reward.toy.world import FPS as TOY_FPS

TEMPLATE, STYLE = (Path(__file__).with_name(f"page.{kind}") for kind in ("html", "css"))
FAULTS_SHOWN = ("clean", COMPRESSED, "freeze", "flicker", "blur", "noise")


def write_page(
    out: Path, story: Story, comparisons: Sequence[Comparison], facts: Mapping[str, int]
) -> Path:
    """Write `index.html`, its clips and its film strips; returns the page."""
    before, after = story.gains()
    lot, counts = story.candidates, story.counts
    fit = [seconds for step, seconds in story.seconds.items() if step.startswith("fit")]
    body = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        each=lot.each,
        ratings=len(story.ratings),
        prompts=len(lot.prompts),
        real=counts["real"],
        candidates=counts["candidates"],
        steps=GENERATION_STEPS,
        free_seconds=f"{fit[0]:.1f}",
        refit_seconds=f"{fit[1]:.1f}",
        bars=gain_bars(before, after),
        dots=unrest_dots(story),
        rows="".join(clip_row(out, story, number) for number in range(len(lot.prompts))),
        timings=pages.table(
            [
                ("step", "time"),
                *((step, f"{value:.1f} s") for step, value in story.seconds.items()),
            ],
            numbers=1,
        ),
        footage=pages.table(table_rows(comparisons), numbers=1),
        shown=footage_clips(out),
        facts=", ".join(f"{value} {name}" for name, value in facts.items()),
        cannot=html.escape(CANNOT),
    )
    draw_strips(out, story)
    return pages.write_page(
        out / "index.html",
        kind="Demo",
        title=f"{len(story.ratings)} ratings, {fit[1]:.1f} seconds: the best of {lot.each} clips "
        f"takes {percent(after)} of the possible gain in steadiness instead of {percent(before)}",
        lead="On this machine a small video generator made clips, a judge was fitted to read them "
        "as latents, and a simulated person rated how steady the colours of some are. No training "
        "steps, no GPU, no decoding for scoring. Everything took "
        f"{story.seconds['everything'] / 60:.1f} minutes.",
        body=pages.Markup(body),
        style=STYLE.read_text(encoding="utf-8"),
    )


def clip_row(out: Path, story: Story, number: int) -> str:
    """Three clips of a prompt: picked before, picked after, and ranked last after the ratings."""
    before, after = story.before[number], story.after[number]
    shown = (
        ("picked without labels", before.best, f"{percent(before.gain)} of the possible gain"),
        ("picked after the ratings", after.best, f"{percent(after.gain)} of the possible gain"),
        ("ranked last after the ratings", after.worst, ""),
    )
    figures = "".join(
        figure(out, story, number, place, title, note) for title, place, note in shown
    )
    prompt = html.escape(story.candidates.prompts[number])
    return f'<section class="row"><h3>“{prompt}”</h3><div class="trio">{figures}</div></section>'


def figure(out: Path, story: Story, number: int, place: int, title: str, note: str) -> str:
    """One playing clip, with its pixel metric."""
    lot = story.candidates
    frames = lot.frames[lot.rows(number)][place]
    name = f"videos/prompt-{number}-clip-{place}.mp4"
    if not (out / name).exists():
        write_video(out / name, frames, TOY_FPS)
    unrest = colour_unrest(frames[None]).item()
    text = f"colour moves by {unrest:.1f} grey levels" + (f", {note}" if note else "")
    clip = pages.video(name, label=title)
    return f"<figure>{clip}<figcaption><b>{title}</b><br>{text}</figcaption></figure>"


def draw_strips(out: Path, story: Story) -> None:
    """Film strips of the first prompt: the best and the worst by each judge and by the pixels."""
    lot = story.candidates
    frames, measured = lot.frames[lot.rows(0)], lot.steadiness[lot.rows(0)]
    ruler = Choice(int(measured.argmax()), int(measured.argmin()), 1.0)
    judges = {
        "without labels": story.before[0], "after ratings": story.after[0], "by the pixels": ruler
    }  # fmt: skip
    shown = [
        (f"{word}, {name}", place)
        for name, choice in judges.items()
        for word, place in (("best", choice.best), ("worst", choice.worst))
    ]
    clips = [frames[place] for _, place in shown]
    plot_film_strips(
        clips,
        labels=[label for label, _ in shown],
        scores=[colour_unrest(clip[None]).item() for clip in clips],
        score_name="grey levels",
        score_format=".1f",
        title=f"{lot.prompts[0]}: how far the mean colour moves, less is steadier",
        path=out / "strips.png",
    )


def footage_clips(out: Path) -> str:
    """One unseen clip, clean and with each fault, as it was scored."""
    unseen = out / "footage" / "clips" / "unseen"
    name = max(path.name for path in (unseen / "clean").iterdir())
    figures = []
    for kind in FAULTS_SHOWN:
        if not (unseen / kind / name).is_dir():
            continue
        clip = read_video(unseen / kind / name, fps=FPS, frames_fps=FPS, height=SIZE, width=SIZE)
        target = f"videos/unseen-{kind}.mp4"
        write_video(out / target, clip.frames, FPS)
        shown = pages.video(target, label=kind)
        figures.append(f"<figure>{shown}<figcaption>{kind}</figcaption></figure>")
    return "".join(figures)
