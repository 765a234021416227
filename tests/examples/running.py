"""Runs the code blocks of a recipe's page on small things.

Bash reads the commands, with stand-ins on its path that write down what they were called with;
those calls then run in this process, with large things replaced by small ones.
"""

import re
from collections import Counter

import yaml

from gtsvj_reward.cli import main
from tests.docs.commands import FOREIGN as DOWNLOADS, calls_of

BASE = "zai-org/CogVideoX-2b"
LAUNCH = ["accelerate", "launch", "-m", "gtsvj_reward.cli"]

SMALLER = {
    "--height": ("480", "32"),
    "--width": ("720", "48"),
    "--num_frames": ("49", "17"),
    "--max_frames": ("49", "17"),
    "--vae": (BASE, "base"),
    "--base_model": (BASE, "base"),
    "--device": ("cuda", "cpu"),
}
"""Flag -> value on the page, and what the test makes of it."""

ADDED = {
    "encode": ["--device", "cpu"],
    "score": ["--device", "cpu"],
    "calibrate-perturbations": ["--steps", "3"],
    "evaluate": ["--resamples", "5"],
}
"""Command -> flags that the test adds."""

SMALLER_SETTINGS = {
    "base_model": "base",
    "depth": 4,
    "held_out_fraction": 0.4,
    "max_steps": 2,
    "warmup_steps": 0,
    "eval_steps": 2,
    "save_steps": 2,
    "bf16": False,
    "dataloader_num_workers": 0,
}
"""Setting of a YAML file -> its value in the test."""


def blocks(page):
    """Code blocks of a page in order, (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def smaller(words):
    """A command line with large things replaced; their values on the page must be as expected."""
    words = list(words)
    for place, flag in enumerate(words):
        if flag in SMALLER:
            expected, value = SMALLER[flag]
            assert words[place + 1] == expected, words
            words[place + 1] = value
    if "--compare" in words:
        return words
    return words + ADDED.get(words[0], [])


def write_settings(recipe, work):
    """The YAML files of a recipe with small values for some settings."""
    for file in recipe.glob("*.yaml"):
        values = yaml.safe_load(file.read_text())
        values |= {key: small for key, small in SMALLER_SETTINGS.items() if key in values}
        (work / file.name).write_text(yaml.safe_dump({**values, "use_cpu": True}))


def run_page(page, work):
    """Run all code blocks in the current folder; returns counts of commands, and what was not run.

    Blocks of Python share their names. Blocks of `text` are output.
    """
    counts, skipped, names = Counter(), [], {}
    for language, text in blocks(page):
        if language == "python":
            exec(text, names)
            counts["python"] += 1
            continue
        if language == "text":
            continue
        assert language == "bash", f"a block of {language!r} is neither run nor output"
        for call in calls_of(text, work, ("gtsvj", "accelerate", *DOWNLOADS)):
            if call[0] in DOWNLOADS:
                skipped.append(" ".join(call))
                continue
            words = call[1:] if call[0] == "gtsvj" else call[len(LAUNCH) :]
            assert call[0] == "gtsvj" or call[: len(LAUNCH)] == LAUNCH, call
            assert main(smaller(words)) == 0, call
            counts[words[0]] += 1
    return counts, skipped
