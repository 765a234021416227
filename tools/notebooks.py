"""Run the example notebooks and store their outputs.

    python -m tools.notebooks              # all of them; minutes each
    python -m tools.notebooks 01 --fast    # some of them, with small numbers
    python -m tools.notebooks --text       # if only text cells changed

The source of a notebook is the Python file of its name: cells begin with `# %%`, text cells with
`# %% [markdown]`. The `.ipynb` beside it is made from it and never edited by hand.
"""

import argparse
import base64
import io
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tools.check_tree import MACHINE_PATH, ROOT

FOLDER = ROOT / "examples" / "notebooks"
SCRIPTS = FOLDER.parent
"""Folder of the example scripts, which notebooks import from the folder above theirs."""
FAST = "GTSVJ_FAST"
"""Environment variable of the notebooks: 1 means small numbers."""
LIMIT = 3_000_000
"""Bytes that all notebooks may take together."""
MOST_LINES = 150
"""Lines of code, blank ones left out, that a notebook stays below."""
PICTURE_WIDTH, PICTURE_COLOURS = 1000, 256
"""Format of stored pictures."""
INSTALLED = re.compile(r"\S*/site-packages/")
"""Where packages are on this machine, as warnings name it."""
ADDRESS = re.compile(r'^Repository *= *"([^"]+)"', re.MULTILINE)
GITHUB, COLAB = "https://github.com/", "https://colab.research.google.com/github/"
MARK, TEXT_MARK = "# %%", "# %% [markdown]"


def sources(folder: Path = FOLDER) -> list[Path]:
    """The Python files of all notebooks, in their order."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def repository() -> str:
    """The public address of the repository, from `pyproject.toml`; empty while it has none."""
    found = ADDRESS.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found[1].rstrip("/") if found else ""


def addressed(text: str, is_text: bool, path: Path, address: str) -> str:
    """A cell with the public address: what is cloned and, below the heading, where it opens."""
    if not is_text:
        return text.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"')
    if not text.startswith("# ") or not address.startswith(GITHUB):
        return text
    heading, _, rest = text.partition("\n")
    place = f"{address.removeprefix(GITHUB)}/blob/main/{FOLDER.relative_to(ROOT)}/{path.stem}.ipynb"
    return f"{heading}\n\n[Open in Colab]({COLAB}{place})\n{rest}"


def read_source(path: Path, address: str | None = None) -> Any:
    """The notebook of a Python file, without outputs.

    Args:
        path: of the file.
        address: public address of the repository; that of `pyproject.toml` by default.

    Raises:
        ValueError: for text before the first cell, or a line of a text cell that is no comment.
    """
    cells: list[tuple[bool, list[str]]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line in (MARK, TEXT_MARK):
            cells.append((line == TEXT_MARK, []))
        elif not cells and line:
            raise ValueError(f"{path.name}:{number}: expected {MARK!r} or {TEXT_MARK!r}: {line!r}")
        elif cells and cells[-1][0] and line and line != "#" and not line.startswith("# "):
            raise ValueError(f"{path.name}:{number}: a text cell holds comments only: {line!r}")
        elif cells:
            cells[-1][1].append(line[2:] if cells[-1][0] else line)
    notebook = nbformat.v4.new_notebook()
    address = repository() if address is None else address
    for index, (is_text, lines) in enumerate(cells):
        make = nbformat.v4.new_markdown_cell if is_text else nbformat.v4.new_code_cell
        text = "\n".join(lines).strip("\n")
        if address:
            text = addressed(text, is_text, path, address)
        notebook.cells.append(make(text, id=f"cell-{index:02d}"))
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(notebook: Any, folder: Path, *, fast: bool) -> None:
    """Run all cells in a fresh kernel, and keep what they show in the notebook.

    Args:
        notebook: changed in place.
        folder: working folder of the cells.
        fast: use small numbers, and allow a cell a minute instead of an hour.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    client = NotebookClient(
        notebook,
        timeout=600 if fast else 3600,
        startup_timeout=600,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    own = {
        FAST: "1" if fast else "0",
        "IPYTHONDIR": str(folder),
        # Widgets would draw progress bars, which are not stored.
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }
    client.execute(env={**os.environ, **own})
    for cell in code_cells(notebook):
        cell.metadata.clear()
        cell.outputs = [tidy(output) for output in joined(cell.outputs) if shows(output)]


def code_cells(notebook: Any) -> list[Any]:
    """The cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs with neighbouring pieces of one stream put together: a bar arrives piece by piece."""
    found: list[Any] = []
    for output in outputs:
        before = found[-1] if found else None
        streams = before is not None and before.output_type == output.output_type == "stream"
        if streams and before.name == output.name:
            before.text += output.text
        else:
            found.append(output)
    return found


def shows(output: Any) -> bool:
    """Whether there is more to an output than a progress bar that wiped itself out."""
    return output.output_type != "stream" or bool(on_screen(output.text).strip())


def tidy(output: Any) -> Any:
    """An output as it is stored: progress bars at their end, pictures reduced, no folders named."""
    if output.output_type == "stream":
        output.text = INSTALLED.sub("", on_screen(output.text))
    elif "image/png" in output.get("data", {}):
        output.data = {"image/png": reduced(output.data["image/png"])}
    elif "text/html" in output.get("data", {}):
        output.data = {"text/html": output.data["text/html"]}
    return output


def on_screen(text: str) -> str:
    """Text as a terminal shows it: only what follows the last carriage return of each line."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def reduced(picture: str) -> str:
    """A PNG in base64 with fewer pixels and colours."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    if image.width > PICTURE_WIDTH:
        height = round(image.height * PICTURE_WIDTH / image.width)
        image = image.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    # Without k-means the colour of a thin line is merged with that of another.
    few = image.quantize(PICTURE_COLOURS, kmeans=3)
    few.save(stored, "PNG", optimize=True)
    return base64.b64encode(stored.getvalue()).decode()


def problems(notebook: Any, source: Path) -> list[str]:
    """Errors of a stored notebook, one line each.

    Args:
        notebook: as it was read.
        source: the Python file that it should have been made from.
    """
    found = []
    expected = [(cell.cell_type, cell.source) for cell in read_source(source).cells]
    if expected != [(cell.cell_type, cell.source) for cell in notebook.cells]:
        found.append(f"its cells are not those of {source.name}: run `make notebooks`")
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"its cells were not run once each and in order: {counts}")
    shown = [(i, output) for i, cell in enumerate(cells, 1) for output in cell.outputs]
    for number, output in shown:
        if output.output_type == "error":
            found.append(f"cell [{number}] failed: {output.ename}: {output.evalue}")
        paths = MACHINE_PATH.findall(spoken(output).encode())
        found += [f"cell [{number}] shows an absolute path: {path.decode()}" for path in paths]
    if not any("<video" in output.get("data", {}).get("text/html", "") for _, output in shown):
        found.append("it shows no video")
    lines = sum(bool(line.strip()) for cell in cells for line in cell.source.splitlines())
    if lines >= MOST_LINES:
        found.append(f"it has {lines} lines of code: keep it below {MOST_LINES}")
    return found


def spoken(output: Any) -> str:
    """All text of an output."""
    data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
    return "\n".join([output.get("text", ""), *map(str, data.values())])


def run(source: Path, *, fast: bool) -> Any:
    """The notebook of a source, run in a folder that is removed afterwards.

    The example scripts are in the folder above, as they are for who opens the notebook.

    Raises:
        ValueError: if what it shows may not be stored.
    """
    notebook = read_source(source)
    with tempfile.TemporaryDirectory() as above:
        for script in SCRIPTS.glob("*.py"):
            shutil.copy(script, above)
        folder = Path(above) / source.parent.name
        folder.mkdir()
        execute(notebook, folder, fast=fast)
    if found := problems(notebook, source):
        raise ValueError(f"{source.stem}: " + "; ".join(found))
    return notebook


def with_new_text(source: Path) -> Any:
    """The stored notebook with the text cells of its source, so that a typo needs no run.

    Raises:
        ValueError: if its code is another than the source's.
    """
    stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    notebook, ran = read_source(source), code_cells(stored)
    if [cell.source for cell in code_cells(notebook)] != [cell.source for cell in ran]:
        raise ValueError(f"{source.stem}: its code has changed, so it must be run")
    for cell, old in zip(code_cells(notebook), ran, strict=True):
        cell.execution_count, cell.outputs = old.execution_count, old.outputs
    return notebook


def main(argv: list[str] | None = None) -> None:
    """Run notebooks, and write them unless they were run with small numbers."""
    parser = argparse.ArgumentParser(description="Run notebooks and store what they show.")
    parser.add_argument("names", nargs="*", help="beginnings of their names; all by default")
    parser.add_argument("--fast", action="store_true", help="small numbers; nothing is stored")
    parser.add_argument("--text", action="store_true", help="run nothing, renew text cells only")
    args = parser.parse_args(argv)
    chosen = [p for p in sources() if not args.names or p.name.startswith(tuple(args.names))]
    if not chosen:
        sys.exit(f"no notebook is called {args.names}: there are {[p.stem for p in sources()]}")
    for source in chosen:
        began = time.monotonic()
        notebook = with_new_text(source) if args.text else run(source, fast=args.fast)
        if not args.fast:
            nbformat.write(notebook, source.with_suffix(".ipynb"))
        sys.stdout.write(f"{source.stem}: {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    total = sum(path.stat().st_size for path in FOLDER.glob("*.ipynb"))
    if total > LIMIT:
        sys.exit(f"the notebooks take {total:,} bytes together, {LIMIT:,} are allowed")


if __name__ == "__main__":
    main()
