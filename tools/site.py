"""Generated pages of the documentation site, besides those in `docs/`; `make docs` builds it.

mkdocs calls the functions named `on_...`. The README becomes the first page, the commands' own
parsers write theirs, the page of settings comes from the code, each public package gets a page from
its docstrings, and notebooks become tutorials with the outputs that they were stored with.
"""

import ast
import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from gtsvj_reward.cli import COMMANDS, main
from tools.notebooks import repository
from tools.settings_page import settings_page

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
FROM_ELSEWHERE = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?https?:[^>]*"""
)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
PACKAGES = {
    "reward": "score clips, combine rewards",
    "judge": "the model and its checkpoints",
    "latents": "latent spaces, video files, encoding",
    "backbones": "diffusers transformers, watched by hooks",
    "training": "fit and train judges",
    "scoring": "folders, tables, ranking",
    "evaluation": "accuracies against people's preferences",
    "metrics": "accuracies with ties, correlations, intervals",
    "perturbations": "negatives made from real clips",
    "losses": "the paper's formulas",
    "annotations": "label files",
    "sampling": "best of n, guidance, negatives of the generator",
    "alignment": "DDPO, DPO, reward gradients",
    "serving": "the score server and its client",
    "labelling": "the labelling page",
    "integrations": "trainers",
}
"""Package below `gtsvj_reward` -> introduction of its page."""


def on_config(config: Any) -> Any:
    """Name the generated pages in the navigation, and the repository if it is public."""
    config.repo_url = repository() or None
    tutorials = next(part for part in config.nav if "Tutorials" in part)
    tutorials["Tutorials"] = [f"tutorials/{path.stem}.md" for path in NOTEBOOKS]
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    python = next(part for part in reference if isinstance(part, dict) and "Python" in part)
    python["Python"] = [{name: f"reference/python/{name}.md"} for name in PACKAGES]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "start.md": rebased(readme, ROOT),
        "reference/commands.md": commands(),
        "reference/settings.md": settings_page(),
    }
    for name in PACKAGES:
        pages[f"reference/python/{name}.md"] = package_page(name)
    for path in NOTEBOOKS:
        pages[f"tutorials/{path.stem}.md"] = notebook_page(path)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Links to files that are not in the site become names of files."""
    if page.file.generated_by:
        return markdown
    return rebased(markdown, (Path(config.docs_dir) / page.file.src_path).parent)


def on_post_page(output: str, page: Any, config: Any) -> str:  # noqa: ARG001
    """The page, unchanged; rejects external resources, since readers may be offline.

    Raises:
        PluginError: with the page and the first such element.
    """
    if found := FROM_ELSEWHERE.search(output):
        raise PluginError(f"{page.file.src_path} loads from elsewhere: {found[0]}")
    return output


def rebased(markdown: str, folder: Path, page: Path | None = None) -> str:
    """A page of the repository whose links are those of the site.

    Args:
        markdown: the page.
        folder: where it lies in the repository.
        page: the folder it has in the site; its own, or `docs/` for one at the top.
    """
    docs = ROOT / "docs"
    base = page or (docs if folder == ROOT else folder)

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        path = Path(os.path.normpath(folder / target))
        if path == ROOT / "README.md":
            path = docs / "start.md"
        if not path.is_relative_to(docs) or path.suffix == ".json":
            return f"{text} (`{path.relative_to(ROOT)}`)" if text != str(target) else f"`{text}`"
        return f"{image}[{text}]({os.path.relpath(path, base)}{anchor or ''})"

    return LINK.sub(link, markdown)


def notebook_page(path: Path) -> str:
    """A notebook as a page: its text, its code, and what it printed and drew when it was run."""
    where = path.relative_to(ROOT)
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(rebased(source, path.parent, page=ROOT / "docs/tutorials"))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).strip()
                parts.append(f"![what the cell drew](data:image/png;base64,{picture})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            elif output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
    heading, rest = parts[0].split("\n", 1)
    return "\n\n".join([heading, f"The notebook: `{where}`.", rest.strip(), *parts[1:]]) + "\n"


def package_page(name: str) -> str:
    """The public names of a package, each with its docstring.

    They are what its `__init__` imports `as` themselves; a package that imports nothing, like the
    adapters, has its modules' names.
    """
    folder = ROOT / ("integrations" if name == "integrations" else f"gtsvj_reward/{name}")
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    names = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ] or [
        f"gtsvj_reward.{name}.{path.stem}"
        for path in sorted(folder.iterdir())
        if path.stem[0] not in "_."
    ]
    entries = "\n\n".join(f"::: {target}" for target in names)
    return f"# gtsvj_reward.{name}\n\n{PACKAGES[name].capitalize()}.\n\n{entries}\n"


def commands() -> str:
    """Each command's own help."""
    parts = ["# Commands\n"]
    for name, what in COMMANDS.items():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([name, "--help"])
        parts.append(f"## gtsvj {name}\n\n{what}\n\n```text\n{printed.getvalue().rstrip()}\n```\n")
    return "\n".join(parts)
