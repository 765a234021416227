"""The page of settings: dataclasses and flags, with the text that stands in the code."""

import argparse
import contextlib
import importlib
import inspect
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from gtsvj_reward.cli import COMMANDS, RUNNING, main
from gtsvj_reward.flags import field_texts
from gtsvj_reward.tables import markdown_table

EXAMPLES = Path(__file__).parents[1] / "examples"

PAGE = [
    ("A judge", "`config.json` of a checkpoint; `JudgeConfig` in Python.", "judge:JudgeConfig"),
    ("Which judge to build",
     "Flags of `gtsvj train-discriminator`, `train-aspects`, `train-preference` and "
     "`calibrate-perturbations`, or lines of their `--config FILE.yaml`. Without `--readout mlp` "
     "the commands fit `moments`.", "training:JudgeArguments"),
    ("Stage 1, in closed form", "`gtsvj train-discriminator`.", "training:DiscriminatorFit"),
    ("Stage 2, in closed form", "`gtsvj train-aspects`.", "training:AspectFit"),
    ("Stage 3, in closed form", "`gtsvj train-preference`.", "training:PreferenceFit"),
    ("Stage 1, step by step", "`gtsvj train-discriminator --readout mlp`. Settings of "
     "`transformers.TrainingArguments` that are not here can be given too (`--help_all`).",
     "training:DiscriminatorConfig"),
    ("Stage 2, step by step", "`gtsvj train-aspects --readout mlp`.", "training:AspectConfig"),
    ("Stage 3, step by step", "`gtsvj train-preference --readout mlp`.",
     "training:PreferenceConfig"),
    ("Calibration of perturbations", "`gtsvj calibrate-perturbations`.",
     "training:CalibrationSettings"),
    ("Alignment", "Flags of `examples/ddpo.py`, `dpo.py` and `reward_gradients.py`, or lines of "
     "their `--config FILE.yaml`.", "alignment:AlignArguments"),
    ("DDPO and GRPO", "`examples/ddpo.py`, besides those of alignment.", "ddpo.py:DDPOArguments"),
    ("DPO", "`examples/dpo.py`, likewise.", "dpo.py:DPOArguments"),
    ("Reward gradients", "`examples/reward_gradients.py`, likewise.",
     "reward_gradients.py:RewardGradientArguments"),
    ("A judge inside a trainer", "What the adapters to verl-omni, Flow-Factory, UniRL and "
     "VideoX-Fun read; `ScorerConfig` in Python.", "reward.scorer_config:ScorerConfig"),
    ("Negatives of the generator", "`NegativeSettings`, for `make_negatives` in Python.",
     "sampling:NegativeSettings"),
    ("Evaluation", "`EvaluationSettings`, stored in `result.json`.",
     "evaluation:EvaluationSettings"),
    ("Labelling", "`SessionSettings`, for the labelling page in Python.",
     "labelling.session:SessionSettings"),
    ("Serving", "`ServeSettings`, for `build_app` in Python.", "serving.settings:ServeSettings"),
    ("Videos that are served", "`ServeSettings.videos`.", "serving.settings:VideoSettings"),
    ("Limits of a server", "`ServeSettings.limits`.", "serving.limits:Limits"),
]  # fmt: skip
"""Heading, what it is for, `module:class`: a module below `gtsvj_reward`, or an example script."""

MODULES = re.compile(r"\b(?:typing|(?:collections|gtsvj_reward)(?:\.\w+)*)\.(?=[A-Z])")
"""What Python writes in front of the name of a type."""

IN_CLASSES = ("train-discriminator", "train-aspects", "train-preference", "calibrate-perturbations")
"""Commands whose flags are those of the classes."""


def settings_page() -> str:
    """The page.

    Raises:
        ValueError: for a setting without a text.
    """
    parts = [
        "# Settings\n",
        "All settings with their defaults, as the code has them. A setting `name` of a command is "
        "its flag `--name`.\n",
    ]
    for heading, what, place in PAGE:
        cls = class_at(place)
        parts += [f"## {heading}\n", f"{what}\n", markdown_table(class_rows(cls))]
    for command in COMMANDS:
        if command not in IN_CLASSES:
            rows = flag_rows(parser_of(command))
            parts += [f"## gtsvj {command}\n", f"{COMMANDS[command].capitalize()}.\n"]
            parts += [markdown_table(rows)]
    return "\n".join(parts)


def class_at(place: str) -> type:
    """A class of `PAGE`."""
    module, name = place.split(":")
    if not module.endswith(".py"):
        found: type = getattr(importlib.import_module(f"gtsvj_reward.{module}"), name)
        return found
    sys.path.insert(0, str(EXAMPLES))  # scripts import what lies beside them
    try:
        of_script: type = getattr(importlib.import_module(Path(module).stem), name)
    finally:
        sys.path.remove(str(EXAMPLES))
    return of_script


def class_rows(cls: type) -> Sequence[Sequence[str]]:
    """A line for each setting that is ours; of a script those that its class adds.

    Raises:
        ValueError: for one without a text.
    """
    texts: dict[str, str] = {}
    own = [base for base in cls.__mro__ if base.__module__.startswith("gtsvj_reward")]
    if not cls.__module__.startswith("gtsvj_reward"):
        own = [cls]
    names = [name for base in reversed(own) for name in vars(base).get("__annotations__", {})]
    for base in reversed(own):
        texts |= field_texts(base)
    rows = [["setting", "type", "default", "what it is"]]
    theirs = {item.name: item for item in fields(TrainingArguments)}
    for item in fields(cls):
        if item.name not in names:
            continue
        said = texts.get(item.name) or str(item.metadata.get("help", "")).replace("%%", "%")
        if not said:
            raise ValueError(f"{cls.__name__}.{item.name} has no text in the code")
        if said == "As in transformers." and item.name in theirs:
            said = f"As in `transformers.TrainingArguments`; {default_of(theirs[item.name])} there."
        rows.append([f"`{item.name}`", kind_of(item), default_of(item), said])
    return rows


def kind_of(item: "Field[Any]") -> str:
    """The type of a setting, as one writes it."""
    return f"`{MODULES.sub('', inspect.formatannotation(item.type)).replace(' | ', ' or ')}`"


def default_of(item: "Field[Any]") -> str:
    """What a setting is if nobody sets it."""
    if item.default_factory is not MISSING:
        value = item.default_factory()
        return "" if value in ({}, []) else f"`{value!r}`"
    if item.default is MISSING or item.default == "":
        return "required" if item.default is MISSING else ""
    return f"`{item.default!r}`" if not isinstance(item.default, str) else f"`{item.default}`"


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command, which it makes when it is asked for help."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return RUNNING[-1]


def flag_rows(parser: argparse.ArgumentParser) -> Sequence[Sequence[str]]:
    """A line for each flag.

    Raises:
        ValueError: for one without a text, or a name that says nothing by itself.
    """
    rows = [["flag", "default", "what it is"]]
    for action in parser._actions:
        if action.dest == "help" or action.help == argparse.SUPPRESS:
            continue
        name = action.option_strings[0] if action.option_strings else action.dest
        default = "required" if action.required else ""
        if action.default not in (None, False, [], argparse.SUPPRESS):
            default = f"`{action.default}`"
        said = (action.help or "").replace("%%", "%")
        if action.choices:
            said = f"{said} ({', '.join(str(choice) for choice in action.choices)})".strip()
        rows.append([f"`{name}`", default, said])
    return rows
