"""Flags of a command line, with defaults from a YAML file."""

import argparse
import json
from pathlib import Path


def snake_case(argument: str) -> str:
    """A flag in the one spelling that parsers know: `--batch-size`, an older one, is read alike.

    Everything but the name of a flag stays as it is.
    """
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return argument
    return f"--{flag[2:].replace('-', '_')}{equals}{value}"


def with_config(argv: list[str]) -> list[str]:
    """Flags with those of `--config FILE.yaml` put in front, so that flags win."""
    import yaml

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(argv)
    if known.config is None:
        return rest
    values = yaml.safe_load(known.config.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{known.config} must hold `name: value` lines, got {type(values)}")
    flags: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        texts = [json.dumps(item) if isinstance(item, dict) else str(item) for item in items]
        flags += [f"--{name}", *texts]
    return flags + rest
