"""What the documentation's site has beside the pages of `docs/`; `make docs` builds it.

mkdocs calls the functions named `on_...`. The README becomes the first page, the commands' own
parsers write theirs, and each public package gets a page from its docstrings.
"""

import ast
import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from gtsvj_reward.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
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
"""Package below `gtsvj_reward` -> what its page says first."""


def on_config(config: Any) -> Any:
    """Name the generated pages of the packages in the navigation."""
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    python = next(part for part in reference if isinstance(part, dict) and "Python" in part)
    python["Python"] = [{name: f"reference/python/{name}.md"} for name in PACKAGES]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and leave data out."""
    for file in list(files):
        if file.src_path.endswith(".json"):
            files.remove(file)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"start.md": rebased(readme, ROOT), "reference/commands.md": commands()}
    for name in PACKAGES:
        pages[f"reference/python/{name}.md"] = package_page(name)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Links to files that are not in the site become names of files."""
    if page.file.generated_by:
        return markdown
    return rebased(markdown, (Path(config.docs_dir) / page.file.src_path).parent)


def rebased(markdown: str, folder: Path) -> str:
    """A page of the repository whose links are those of the site.

    Args:
        markdown: the page.
        folder: where it lies in the repository; generated pages are placed in `docs/`.
    """
    docs = ROOT / "docs"
    base = docs if folder == ROOT else folder

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
