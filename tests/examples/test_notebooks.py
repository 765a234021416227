"""The example notebooks run, and what is stored of them was run from their sources."""

import nbformat
import pytest

from tools.notebooks import FAST, FOLDER, LIMIT, code_cells, problems, read_source, sources


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
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_notebooks_run(source, tmp_path, monkeypatch):
    """In this process; a kernel for each imports torch anew. `tests/tools` runs a kernel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FAST, "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")  # cells set it too, and leave it behind
    monkeypatch.syspath_prepend(FOLDER.parent)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(read_source(source)), 1):
        exec(compile(cell.source, f"{source.stem}, cell [{number}]", "exec"), names)
