"""Install the built wheel into clean environments, and run the quickstart in each.

    make wheel && python -m tools.release_check dist

Three environments, all with the torch of `constraints.txt`: every version as constrained; the
newest diffusers, peft and transformers; the lowest of these that `pyproject.toml` admits.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import requires
from pathlib import Path

from tools.check_tree import ROOT
from tools.check_wheel import only
from tools.lowest_versions import floor

MODELS = ("diffusers", "peft", "transformers")
"""Dependencies that change often."""
QUICKSTART = (
    "quickstart --pipeline gtsvj-toy-pipeline --out judge --per_prompt 1 --steps 4 --batch_size 8 "
    "--device cpu"
)
WRITTEN = ("judge/config.json", "judge-work/scores.csv", "judge-work/report/index.html")
"""Files that the quickstart writes."""
VERSIONS = (
    "from importlib.metadata import version; "
    f"print(', '.join(f'{{n}} {{version(n)}}' for n in {('gtsvj-reward', 'torch', *MODELS)!r}))"
)


def name_of(requirement: str) -> str:
    """`"torch==2.13.0 ; marker"` -> `"torch"`."""
    return re.split(r"[=<>!~; \[]", requirement, maxsplit=1)[0]


def constraints(kind: str, pinned: list[str], wanted: list[str]) -> list[str]:
    """Lines of the constraint file of an environment.

    Args:
        kind: `constrained`, `newest` or `lowest`.
        pinned: lines of `constraints.txt`.
        wanted: requirements of the package.
    """
    if kind == "constrained":
        return pinned
    torch = [line for line in pinned if name_of(line) == "torch"]
    if kind == "newest":
        return torch
    return torch + [floor(line) for line in wanted if name_of(line) in MODELS]


def check(kind: str, wheel: Path, folder: Path) -> None:
    """Install into a new environment and run the quickstart there; raises if a step fails."""
    pinned = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    lines = constraints(kind, pinned, requires("gtsvj-reward") or [])
    (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in lines))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "-c", "constraints.txt", str(wheel.resolve())], folder)
    run([*pip, "check"], folder)
    run([str(python), "-c", VERSIONS], folder)
    run([str(python.with_name("gtsvj")), *QUICKSTART.split()], folder)
    if missing := [name for name in WRITTEN if not (folder / name).is_file()]:
        sys.exit(f"{kind}: the quickstart did not write {', '.join(missing)}")


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder; exits with its words if it fails."""
    if subprocess.run(command, cwd=folder, check=False).returncode:
        sys.exit(f"failed: {' '.join(command)}")


def main() -> None:
    """Check the wheel of a folder in all environments, or in those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dist", type=Path, help="folder with one wheel")
    parser.add_argument("--only", nargs="+", default=["constrained", "newest", "lowest"])
    args = parser.parse_args()
    wheel = only(args.dist, "*.whl")
    for kind in args.only:
        began = time.monotonic()
        print(f"== {kind}: a new environment takes minutes and about 2 GB", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            check(kind, wheel, Path(folder))
        print(f"== {kind}: passed in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
