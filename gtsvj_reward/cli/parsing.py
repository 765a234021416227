"""Shared by all commands: names, help, parsers, and messages that name flags."""

import argparse
import logging
from typing import TypeVar

from gtsvj_reward.flags import in_flags

COMMANDS = {
    "demo": "train a small judge on real clips on this machine and report on unseen footage",
    "quickstart": "fit a judge to a pipeline and real videos in one command",
    "models": "list the bundled models",
    "encode": "turn a folder of videos into latent files",
    "decode": "turn latent files into videos",
    "negatives": "generate imperfect clips as negatives for stage 1",
    "train-discriminator": "stage 1: train the energy judge",
    "train-aspects": "stage 2: predict aspect scores from ratings",
    "train-preference": "stage 3: one score from comparisons",
    "distill": "fit a cheaper judge to the scores of a judge or a table, without labels",
    "label": "compare or rate clips on a local page while a judge learns",
    "calibrate-perturbations": "measure the difficulty of each perturbation, set its probability",
    "score": "score a folder of videos or latent files",
    "rank": "rank the clips of each prompt, and write pairs for DPO",
    "split": "hold out rows of a label file, with no clip on both sides",
    "evaluate": "evaluate the scores of any reward model on human preferences",
    "inspect": "describe a checkpoint and the pipelines it fits",
    "serve": "score latents over HTTP",
}

_CLIPS_AND_STEPS = (
    "stopped: the same command resumes; features and steps up to the last checkpoint are kept"
)

AFTER_CTRL_C = {
    "train-discriminator": _CLIPS_AND_STEPS,
    "train-aspects": _CLIPS_AND_STEPS,
    "train-preference": _CLIPS_AND_STEPS,
    "distill": "stopped: the same command resumes; finished clips are kept",
    "calibrate-perturbations": "stopped: the same command resumes; finished runs are kept",
}
"""Command -> its last line after Ctrl-C, for a `KeyboardInterrupt` without a message."""


Parser = TypeVar("Parser", bound=argparse.ArgumentParser)

RUNNING: list[argparse.ArgumentParser] = []
"""Parsers of the current command."""


def subparser(command: str) -> argparse.ArgumentParser:
    """The parser of one command; its help shows the defaults."""
    return running(
        argparse.ArgumentParser(
            prog=f"gtsvj {command}",
            description=COMMANDS[command],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
    )


def running(parser: Parser) -> Parser:
    """Let messages name the flags of a parser."""
    RUNNING.append(parser)
    return parser


def as_typed(message: str) -> str:
    """A message of the package, with settings named as flags of the current command."""
    options = [option for parser in RUNNING for option in parser._option_string_actions]
    return in_flags(message, {option.removeprefix("--") for option in options})


class FlagFormatter(logging.Formatter):
    """Names flags in warnings too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to print."""
        return as_typed(super().format(record))
