"""What all commands share: their names, help, parsers, and messages in terms of flags."""

import argparse
import logging
from typing import TypeVar

from gtsvj_reward.flags import in_flags

COMMANDS = {
    "demo": "train a small judge on real clips on this machine and report on unseen footage",
    "quickstart": "from a pipeline and real videos to a judge, in one command",
    "models": "list the models that come with the package",
    "encode": "turn a folder of videos into latent files",
    "decode": "turn latent files into videos, to look at or to label",
    "negatives": "make clips that fall short, with the generator itself: negatives of stage 1",
    "train-discriminator": "stage 1: train the energy judge",
    "train-aspects": "stage 2: predict aspect scores from ratings",
    "train-preference": "stage 3: one score from comparisons",
    "distill": "fit a cheaper judge to what a judge or a table says of clips without labels",
    "label": "compare or rate clips on a local page, and fit a judge while you watch",
    "calibrate-perturbations": "measure how hard each perturbation is, and how often to sample it",
    "score": "score a folder of videos or latent files",
    "rank": "order the clips of each prompt, and write pairs for DPO",
    "split": "put rows of a label file aside, so that no clip is on both sides",
    "evaluate": "accuracy of any reward model's scores on a preference benchmark",
    "inspect": "say what a checkpoint is and which pipelines it fits",
    "serve": "score latents over HTTP",
}

_CLIPS_AND_STEPS = (
    "stopped: the same command goes on; what was read of clips, and steps up to the last "
    "checkpoint, are not done again"
)

AFTER_CTRL_C = {
    "train-discriminator": _CLIPS_AND_STEPS,
    "train-aspects": _CLIPS_AND_STEPS,
    "train-preference": _CLIPS_AND_STEPS,
    "distill": "stopped: the same command goes on; clips that were scored or read are not again",
    "calibrate-perturbations": "stopped: the same command goes on after the last finished kind",
}
"""Command -> what its last line says after Ctrl-C, where a `KeyboardInterrupt` has no message."""


Parser = TypeVar("Parser", bound=argparse.ArgumentParser)

RUNNING: list[argparse.ArgumentParser] = []
"""Parsers of the command that runs."""


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
    """A message of the package in terms of the flags of the command that runs."""
    options = [option for parser in RUNNING for option in parser._option_string_actions]
    return in_flags(message, {option.removeprefix("--") for option in options})


class FlagFormatter(logging.Formatter):
    """Names flags in warnings too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to print."""
        return as_typed(super().format(record))
