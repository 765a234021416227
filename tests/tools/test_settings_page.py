"""The page of settings holds all of them, with the text and the default of the code."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import gtsvj_reward
from tools.settings_page import PAGE, class_at, class_rows, flag_rows, parser_of, settings_page

PACKAGE = Path(gtsvj_reward.__file__).parent
SETTINGS = re.compile(r"[A-Za-z]+(Settings|Config|Arguments|Fit)")


@pytest.fixture(scope="module")
def page():
    return settings_page()


def test_every_class_of_settings_is_there():
    shown = {base.__name__ for _, _, place in PAGE for base in class_at(place).__mro__}
    trees = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    found = {
        node.name: path
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and SETTINGS.fullmatch(node.name) and node.decorator_list
    }
    assert len(found) > 10
    assert {name: path for name, path in found.items() if name not in shown} == {}


def test_settings_and_flags_stand_with_their_defaults(page):
    for line in (
        "| `lora_rank` | `int` | `8` | ",
        "| `penalties` | `tuple[float, ...] or None` | `None` | ",
        "| `aspects` | `tuple[Aspect, ...]` | `()` | ",
        "| `advantage_clip` | `float` | `5.0` | ",
        "| `checkpoint` | `str` | required | ",
        "| `--fps` | required | ",
        "| `--dtype` | `float32` | (float32, bfloat16, float16) |",
    ):
        assert f"\n{line}" in page, line
    assert "gtsvj_reward." not in re.sub(r"`gtsvj_reward[^`]*`", "", page)


def test_a_script_shows_what_it_adds():
    names = [row[0] for row in class_rows(class_at("ddpo.py:DDPOArguments"))]
    assert "`clip_range`" in names
    assert "`iterations`" not in names


def test_the_paper_s_recipe_leaves_out_what_transformers_documents():
    names = [row[0] for row in class_rows(class_at("training:DiscriminatorConfig"))]
    assert {"`head_learning_rate`", "`learning_rate`", "`beta`"} <= set(names)
    assert "`fp16`" not in names


def test_flags_of_a_command_are_those_of_its_parser():
    rows = flag_rows(parser_of("serve"))
    assert len(rows) == len(parser_of("serve")._actions)  # help has none, the header is a row
    assert all(row[2] or row[0] for row in rows)


def test_a_setting_without_a_text_is_refused():
    @dataclass
    class Silent:
        """Says nothing of its setting."""

        name: str = "x"

    with pytest.raises(ValueError, match=r"Silent\.name has no text in the code"):
        class_rows(Silent)
