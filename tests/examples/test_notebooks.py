"""The example notebooks run, and what is stored of them was run from their sources."""

import nbformat
import pytest

from tools.notebooks import FOLDER, LIMIT, problems, run, sources


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_what_is_stored_was_run_from_the_source(source):
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert problems(notebook, source) == []


def test_all_notebooks_are_there_and_small():
    stored = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    assert stored == [path.stem for path in sources()] != []
    assert sum(path.stat().st_size for path in FOLDER.glob("*.ipynb")) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_notebooks_run(source):
    run(source, fast=True)
