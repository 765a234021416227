"""Shell blocks of a page: bash says what is called, and the real parsers read it; nothing runs."""

import argparse
import os
import re
import runpy
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import metadata
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from gtsvj_reward.cli import main

ROOT = Path(__file__).parents[2]
FOREIGN = ("hf", "unzip")
"""Commands of others, for downloads."""
PROGRAMS = ("gtsvj", "accelerate", "make", "pip", "python", *FOREIGN)
INCOMPLETE = ("required", "expected one argument")
"""What parsers say of a command that is cut short."""


class Parsed(Exception):  # noqa: N818 - it is what is hoped for
    """The command line was read without complaint."""


def calls_of(block, work, programs=PROGRAMS):
    """What bash calls, word for word; nothing is run."""
    stubs, record = work / "stubs", work / "calls"
    stubs.mkdir(exist_ok=True)
    for name in programs:
        script = f'printf "%s\\037" {name} "$@" >> "{record}"; echo >> "{record}"'
        (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
        (stubs / name).chmod(0o755)
    record.write_text("")
    environment = {**os.environ, "PATH": f"{stubs}:/usr/bin:/bin"}
    subprocess.run(["bash", "-eu", "-c", block], cwd=work, env=environment, check=True)
    return [line.split("\037")[:-1] for line in record.read_text().splitlines()]


@contextmanager
def parsers_stop():
    """Parsers raise `Parsed` in place of returning, but for those that only find a command."""
    original = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self, args=None, namespace=None):
        found, rest = original(self, args, namespace)
        if not self.add_help or self.prog == "gtsvj":
            return found, rest
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
        yield


def check(words, capsys, *, whole=True):
    """Read one command line with the parser that would read it.

    Args:
        words: program and arguments.
        capsys: has what a parser complains of.
        whole: False for a command in running text, which may leave out what is required.
    """
    program, *rest = words
    if program in OTHERS:
        OTHERS[program](rest, capsys, whole)
        return
    start = {"gtsvj": main, "python": run_python}[program]
    with parsers_stop(), pytest.raises((Parsed, SystemExit)) as stopped:
        start(rest)
    if stopped.type is SystemExit and stopped.value.code != 0:  # 0 is that of --help
        complaint = capsys.readouterr().err
        cut_short = not whole and any(text in complaint for text in INCOMPLETE)
        assert cut_short, f"{' '.join(words)}\n{complaint}"


def run_python(words):
    """`python -m MODULE ...` or `python SCRIPT ...`, up to its parser."""
    with pytest.MonkeyPatch.context() as patch:
        if words[0] == "-m":
            patch.setattr(sys, "argv", words[1:])
            runpy.run_module(words[1], run_name="__main__")
        else:
            script = ROOT / words[0]
            assert script.is_file(), f"there is no {words[0]}"
            patch.setattr(sys, "argv", words)
            patch.syspath_prepend(str(script.parent))
            runpy.run_path(str(script), run_name="__main__")


def check_launch(words, capsys, whole):
    """`accelerate launch`, and what it starts."""
    assert words[0] == "launch", words
    found = launch_command_parser().parse_args(words[1:])
    if found.training_script == "gtsvj_reward.cli":
        assert found.module
        check(["gtsvj", *found.training_script_args], capsys, whole=whole)
    else:
        check(["python", found.training_script, *found.training_script_args], capsys, whole=whole)


def check_make(words, capsys, whole):
    """Targets exist, and so do the variables."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \??=" if is_variable else rf"^{name}:.*##"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def check_pip(words, capsys, whole):
    """`pip install` of this package, with extras that exist."""
    known = {"", *metadata("gtsvj-reward").get_all("Provides-Extra")}
    assert words[0] == "install", words
    for word in words[1:]:
        name, extras = re.fullmatch(r"([\w.-]+?)(?:\[([\w,]+)\])?", word).groups()
        assert name in (".", "gtsvj-reward"), f"pip installs {name}"
        unknown = set((extras or "").split(",")) - known
        assert not unknown, f"there is no extra {unknown}"


OTHERS = {"make": check_make, "pip": check_pip, "accelerate": check_launch}
"""Programs of others, and who checks what is asked of them."""
