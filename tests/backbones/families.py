"""All families of transformers that tests know; one `family_<name>.py` each."""

import importlib
from pathlib import Path

from tests.backbones.family import Family as Family


def load() -> list[Family]:
    """All families for which there is a file, and whose models this diffusers has."""
    files = sorted(Path(__file__).parent.glob("family_*.py"))
    return [family for file in files for family in families_of(f"tests.backbones.{file.stem}")]


def families_of(module: str) -> list[Family]:
    """The families of one file; none if diffusers is too old for them."""
    try:
        return importlib.import_module(module).FAMILIES
    except ImportError as error:
        if "diffusers" not in str(error):
            raise
        return []


FAMILIES = load()
