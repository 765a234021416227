"""Sources become notebooks, notebooks are run, and what must not be stored is found."""

import base64
import io
from ast import literal_eval

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from tools.notebooks import (
    MOST_LINES,
    PICTURE_WIDTH,
    code_cells,
    execute,
    joined,
    on_screen,
    problems,
    read_source,
    reduced,
    run,
    tidy,
    with_new_text,
)

SOURCE = """\
# %% [markdown]
# # Title
#
# Text, *emphasised*.

# %%
import os

fast = os.environ["GTSVJ_FAST"]

# %%
# A comment of the code
print("fast:", fast)
"""

VIDEO = '<div><video src="data:video/mp4;base64,AAAA" autoplay></video></div>'


def png(width=40, colours=("red", "blue")):
    image = Image.new("RGB", (width, 20), colours[0])
    image.paste(colours[1], (0, 0, width // 2, 20))
    stored = io.BytesIO()
    image.save(stored, "PNG")
    return base64.b64encode(stored.getvalue()).decode()


def test_the_public_address_is_filled_in_where_there_is_one(tmp_path):
    path = written(tmp_path, SOURCE.replace("import os", 'REPOSITORY = ""  # to clone'))
    here = "https://github.com/someone/judges"
    title, code, last = read_source(path, here).cells
    assert last.source.startswith("# A comment of the code\nprint")
    assert title.source == (
        "# Title\n\n[Open in Colab](https://colab.research.google.com/github/someone/judges/blob/"
        "main/examples/notebooks/07_example.ipynb)\n\nText, *emphasised*."
    )
    assert code.source.startswith(f'REPOSITORY = "{here}"  # to clone')
    title, code, _ = read_source(path, "https://example.org/judges.git").cells
    assert title.source == "# Title\n\nText, *emphasised*."
    assert 'REPOSITORY = "https://example.org/judges.git"' in code.source
    assert 'REPOSITORY = ""' in read_source(path, "").cells[1].source


def written(folder, text=SOURCE):
    path = folder / "07_example.py"
    path.write_text(text)
    return path


def stored(path):
    """A notebook as if it had been run: numbers, a line and a video."""
    notebook = read_source(path)
    for number, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = number
    played = nbformat.v4.new_output("display_data", {"text/html": VIDEO})
    cell.outputs = [nbformat.v4.new_output("stream", text="fast: 0\n"), played]
    assert problems(notebook, path) == []
    return notebook


def test_cells_are_those_of_the_source(tmp_path):
    cells = read_source(written(tmp_path)).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        ("markdown", "# Title\n\nText, *emphasised*."),
        ("code", 'import os\n\nfast = os.environ["GTSVJ_FAST"]'),
        ("code", '# A comment of the code\nprint("fast:", fast)'),
    ]


def test_equal_sources_give_equal_files(tmp_path):
    path = written(tmp_path)
    assert nbformat.writes(read_source(path)) == nbformat.writes(read_source(path))
    nbformat.validate(read_source(path))


@pytest.mark.parametrize(
    ("text", "place"),
    [("import os\n\n# %%\nos\n", ":1:"), ("# %% [markdown]\n# Text\nimport os\n", ":3:")],
)
def test_what_is_in_no_cell_is_refused(tmp_path, text, place):
    with pytest.raises(ValueError, match=place):
        read_source(written(tmp_path, text))


@pytest.mark.parametrize(("fast", "shown"), [(True, "fast: 1\n"), (False, "fast: 0\n")])
def test_cells_learn_whether_they_shall_be_fast(tmp_path, fast, shown):
    notebook = read_source(written(tmp_path))
    execute(notebook, tmp_path, fast=fast)
    assert code_cells(notebook)[-1].outputs[0].text == shown


def test_cells_find_the_example_scripts_in_the_folder_above(tmp_path):
    show = f"from IPython.display import HTML, display\ndisplay(HTML({VIDEO!r}))"
    draw = "import pathlib\npathlib.Path('a.png').touch()"
    find = "print(sorted(path.name for path in pathlib.Path('..').glob('*.py')))"
    text = "\n".join(["# %%", draw, show, find]) + "\n"
    (cell,) = code_cells(run(written(tmp_path, text), fast=True))
    printed = "".join(output.get("text", "") for output in cell.outputs)
    assert {"ddpo.py", "dpo.py", "reward_gradients.py", "shared.py"} <= set(literal_eval(printed))
    assert [dict(output.data) for output in cell.outputs if "data" in output] == [
        {"text/html": VIDEO}
    ]
    assert not list(tmp_path.glob("*.png"))


def test_a_failing_cell_fails_the_run(tmp_path):
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(written(tmp_path, "# %%\n1 / 0\n"), fast=True)


def test_a_run_that_shows_what_may_not_be_stored_is_refused(tmp_path):
    text = "# %%\nimport os\n\nprint(os.getcwd())\n"
    with pytest.raises(ValueError, match=r"absolute path.*no video"):
        run(written(tmp_path, text), fast=True)


def test_changed_cells_are_found(tmp_path):
    path = written(tmp_path)
    notebook = stored(path)
    notebook.cells[2].source += "  # edited by hand"
    assert "not those of 07_example.py" in " ".join(problems(notebook, path))


def test_cells_that_were_not_run_are_found(tmp_path):
    path = written(tmp_path)
    notebook = stored(path)
    notebook.cells[1].execution_count = None
    assert "not run once each" in " ".join(problems(notebook, path))


def test_errors_paths_and_missing_pictures_are_found(tmp_path):
    path = written(tmp_path)
    notebook = stored(path)
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    notebook.cells[2].outputs = [error]
    assert problems(notebook, path) == ["cell [2] failed: ValueError: no", "it shows no video"]
    # Put together, so that this file does not name a machine's path itself
    notebook = stored(path)
    notebook.cells[2].outputs[0].text = "wrote " + "/".join(["", "home", "me", "judge"])
    assert len(problems(notebook, path)) == 1


def test_a_long_notebook_is_found(tmp_path):
    path = written(tmp_path)  # it has four lines of code
    notebook = stored(path)
    for more, found in ((MOST_LINES - 5, 0), (MOST_LINES - 4, 1)):
        written(tmp_path, SOURCE + "\n" + "fast\n" * more)
        notebook.cells[-1].source = read_source(path).cells[-1].source
        assert len(problems(notebook, path)) == found


def test_pictures_keep_their_shape_and_look(tmp_path):
    small = Image.open(io.BytesIO(base64.b64decode(reduced(png(3000)))))
    assert small.size == (PICTURE_WIDTH, 7)
    colours = [small.convert("RGB").getpixel((x, 3)) for x in (10, PICTURE_WIDTH - 10)]
    assert colours == [(0, 0, 255), (255, 0, 0)]
    assert Image.open(io.BytesIO(base64.b64decode(reduced(png(40))))).size == (40, 20)


def test_a_rare_colour_stays_itself():
    many = Image.radial_gradient("L").resize((400, 400)).convert("RGB")
    many.paste(Image.linear_gradient("L").resize((400, 200)).convert("RGB"), (0, 100))
    many = Image.merge("RGB", [*many.split()[:2], many.rotate(90).split()[0]])
    for row, colour in ((50, (0, 114, 178)), (60, (0, 158, 115))):
        many.paste(colour, (0, row, 400, row + 1))
    image = io.BytesIO()
    many.save(image, "PNG")
    small = Image.open(io.BytesIO(base64.b64decode(reduced(base64.b64encode(image.getvalue())))))
    for row, colour in ((50, (0, 114, 178)), (60, (0, 158, 115))):
        found = small.convert("RGB").getpixel((200, row))
        assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 16


def test_progress_bars_are_stored_at_their_end():
    assert on_screen("kept\n 10%\r 50%\r100%\ndone") == "kept\n100%\ndone"
    assert on_screen("  0%\r 50%\r       \r").strip() == ""


def test_a_bar_that_arrives_in_pieces_is_stored_at_its_end(tmp_path):
    step = "print(f'\\r{i}/2', end='', file=sys.stderr, flush=True)"
    text = f"# %%\nimport sys\n\nprint('kept')\nfor i in range(3):\n    {step}\n"
    notebook = read_source(written(tmp_path, text))
    execute(notebook, tmp_path, fast=True)
    shown = [(output.name, output.text) for output in code_cells(notebook)[0].outputs]
    assert sorted(shown) == [("stderr", "2/2"), ("stdout", "kept\n")]


def test_only_neighbouring_pieces_of_one_stream_are_joined():
    pieces = [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]
    made = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    made.insert(2, nbformat.v4.new_output("display_data", {"image/png": png()}))
    told = [output.get("text", "picture") for output in joined(made)]
    assert told == ["ab", "picture", "c", "d"]


def test_a_warning_does_not_say_where_packages_are():
    text = "/".join(
        ["", "home", "me", "lib", "site-packages", "torch", "nn.py:3: UserWarning: no\n"]
    )
    told = tidy(nbformat.v4.new_output("stream", text="kept /\n" + text)).text
    assert told == "kept /\ntorch/nn.py:3: UserWarning: no\n"


def test_text_is_renewed_without_a_run_and_code_is_not(tmp_path):
    path = written(tmp_path)
    nbformat.write(stored(path), path.with_suffix(".ipynb"))
    path.write_text(SOURCE.replace("Title", "Other title"))
    notebook = with_new_text(path)
    assert notebook.cells[0].source.startswith("# Other title")
    assert code_cells(notebook)[-1].outputs == code_cells(stored(path))[-1].outputs
    assert problems(notebook, path) == []
    path.write_text(SOURCE.replace("fast:", "slow:"))
    with pytest.raises(ValueError, match="must be run"):
        with_new_text(path)
