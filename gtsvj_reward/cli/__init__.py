"""`gtsvj`: reads the command line and calls the package; no logic of its own."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from gtsvj_reward import __version__
from gtsvj_reward.cli.parsing import (
    AFTER_CTRL_C,
    COMMANDS as COMMANDS,
    RUNNING,
    FlagFormatter,
    as_typed,
)
from gtsvj_reward.flags import snake_case, with_config as with_config

MODULES = {
    "train-discriminator": "train",
    "train-aspects": "train",
    "train-preference": "train",
    "calibrate-perturbations": "train",
    "rank": "score",
}
"""Command -> the module with its function, if it has another name; imported when run."""

STOPPED = 130
"""Exit status after Ctrl-C, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="gtsvj",
        description="Video rewards read straight from diffusion latents.",
        epilog="\n".join(f"  {name:<24} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gtsvj {__version__}")
    parser.add_argument(
        "command", choices=COMMANDS, metavar="command", help="one of the commands below"
    )
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    command = parser.parse_args(argv[:1]).command
    RUNNING.clear()
    printed = logging.StreamHandler()
    printed.setFormatter(FlagFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[printed])
    try:
        module = importlib.import_module(f"gtsvj_reward.cli.{MODULES.get(command, command)}")
        run: Callable[[list[str]], int] = getattr(module, command.replace("-", "_"))
        return run([snake_case(argument) for argument in argv[1:]])
    except (OSError, ValueError, ImportError, KeyError) as error:
        if os.environ.get("GTSVJ_TRACEBACK"):
            raise
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"gtsvj {command}: {as_typed(str(message))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        if os.environ.get("RANK", "0") == "0":  # only one process prints
            said = str(stopped) or AFTER_CTRL_C.get(command, "stopped")
            print(f"\ngtsvj {command}: {as_typed(said)}", file=sys.stderr)  # below a progress bar
        return STOPPED
