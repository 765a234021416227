"""Flags of a command line, with defaults from a YAML file."""

import argparse
import ast
import inspect
import json
import re
import textwrap
from collections.abc import Collection
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

Settings = TypeVar("Settings")

SETTING = re.compile(
    r"""
    `(?P<name>\w+)`                                    # `depth`
    | `(?P<on>\w+)=True`                               # `overwrite=True`
    | `(?P<given>\w+)[= ](?P<value>[^`\s]*)`           # `lora_rank=0`, `optim sgd`
    | (?<![\w`.(])(?P<bare>\w+)='(?P<text>[^'\s]*)'    # readout='moments'
    """,
    re.VERBOSE,
)
"""How messages name a setting of a Python call and its value."""

COLUMN = re.compile(r"(columns?|cells of|has|scores? in|beside|repeat \w+) (`[^`]*`, )*$")
"""Text before the name of a table column, which may also be the name of a flag."""


def documented(settings: type[Settings]) -> type[Settings]:
    """The same dataclass, with the text below each field as the help of its flag."""
    texts: dict[str, str] = {}
    for cls in reversed(settings.__mro__[:-1]):
        if not cls.__module__.startswith("transformers."):  # which describes its own
            texts |= field_texts(cls)
    for item in fields(settings):  # type: ignore[arg-type]
        if item.name in texts:
            text = texts[item.name].replace("%", "%%")  # argparse formats it
            item.metadata = MappingProxyType({**item.metadata, "help": text})
    return settings


def field_texts(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, in one line."""
    texts = {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    for pair in pairwise(tree.body):  # type: ignore[attr-defined]
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = " ".join(text.split())
    return texts


def snake_case(argument: str) -> str:
    """A flag in the one spelling that parsers know: `--batch-size`, an older one, is read alike.

    Everything but the name of a flag stays as it is.
    """
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return argument
    return f"--{flag[2:].replace('-', '_')}{equals}{value}"


def in_flags(message: str, flags: Collection[str]) -> str:
    """A message with settings named as the user of a command typed them: `depth` is `--depth`.

    Args:
        message: as the package words it, with names of Python arguments.
        flags: of the command, without `--`; other names stay.
    """

    def flag(found: re.Match[str]) -> str:
        name = found["name"] or found["on"] or found["given"] or found["bare"]
        if found["value"] == "False" and f"no_{name}" in flags:
            return f"--no_{name}"
        if name not in flags or COLUMN.search(message, 0, found.start()):
            return found[0]
        value = found["value"] or found["text"]
        return f"--{name} {value}" if value else f"--{name}"

    # Where a message names the flag already, the Python argument follows in brackets.
    return re.sub(r"(--\w+) \(\1\)", r"\1", SETTING.sub(flag, message))


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
