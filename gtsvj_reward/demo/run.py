"""Both parts of the demo, and its page."""

import json
import time
from pathlib import Path

from gtsvj_reward.demo.footage import Command, find_footage, judge_footage
from gtsvj_reward.demo.page import write_page
from gtsvj_reward.demo.report import print_footage, print_story, story_record
from gtsvj_reward.demo.story import Sizes, tell
from gtsvj_reward.files import write_text

PROMPT = "two yellow circles falling"
"""The default of the first ranked prompt."""


def run_demo(
    out: Path,
    *,
    videos: Path | None,
    seed: int,
    run_command: Command,
    prompt: str = PROMPT,
    sizes: Sizes | None = None,
) -> Path:
    """Fit a judge to the toy generator and rank its clips; then real clips; and report.

    Args:
        out: folder for everything; must be new or empty.
        videos: your own videos instead of the default clips, for the second part.
        seed: of every draw.
        run_command: runs a `gtsvj` command line.
        prompt: of the toy world, among those whose clips are ranked.
        sizes: of the first part.

    Returns:
        The HTML page.

    Raises:
        ValueError: if `out` holds something already.
        RuntimeError: if a command fails.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give another --out, or remove it")
    footage = find_footage(videos)
    began = time.monotonic()
    story = tell(out / "toy", prompt, sizes or Sizes(), seed)
    print_story(story)
    comparisons, facts = judge_footage(out / "footage", footage, seed, run_command)
    print_footage(comparisons)
    story.seconds["everything"] = time.monotonic() - began
    record = {
        "story": story_record(story),
        "footage": {"facts": facts, "comparisons": [vars(item) for item in comparisons]},
    }
    write_text(out / "results.json", json.dumps(record, indent=2) + "\n")
    return write_page(out, story, comparisons, facts)
