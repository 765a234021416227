"""Each setting is described once, where it is declared, and flags say the same."""

from dataclasses import MISSING, dataclass, fields

import pytest
from transformers import HfArgumentParser

from gtsvj_reward.flags import documented
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.training import (
    AspectConfig,
    CalibrationSettings,
    DiscriminatorConfig,
    JudgeArguments,
    PreferenceConfig,
)


@documented
@dataclass
class Example:
    """A text that is no field's."""

    first: int = 1
    """Up to 5% of
    two lines."""
    second: int = 2
    third: int = 3
    """The third."""


def helps(*settings):
    actions = HfArgumentParser(settings)._actions
    return {action.dest: action.help for action in actions}


def test_the_text_below_a_field_is_the_help_of_its_flag():
    found = helps(Example)
    assert (found["first"], found["third"]) == ("Up to 5%% of two lines.", "The third.")
    assert not found["second"]
    assert "Up to 5% of two lines. (default: 1)" in HfArgumentParser(Example).format_help()


def test_arguments_of_a_judge_are_fields_of_its_config():
    config = {item.name: item for item in fields(JudgeConfig)}
    own = {"base_model", "base_dtype", "prompt_dropout"}  # may be empty; `auto`; 0.1 if read
    names = {item.name for item in fields(JudgeArguments)}
    assert {"depth", "lora_rank", "head_width", "timestep"} <= names <= config.keys()
    for item in fields(JudgeArguments):
        if item.name not in own:
            assert item.default is config[item.name].default is not MISSING
    assert helps(JudgeArguments)["lora_placement"] == (
        "Third of the blocks in use that carries LoRA (paper section 4.1)."
    )


@pytest.mark.parametrize(
    "settings", [AspectConfig, CalibrationSettings, DiscriminatorConfig, PreferenceConfig]
)
def test_every_setting_of_ours_says_what_it_is(settings):
    ours = {
        name
        for cls in (JudgeArguments, *settings.__mro__)
        if cls.__module__.startswith("gtsvj_reward")
        for name in cls.__annotations__
    }
    found = helps(JudgeArguments, settings)
    assert not [name for name in sorted(ours) if not found[name]]
