"""Check a built wheel and sdist, then use the wheel outside the checkout.

    python -m build && python -m tools.check_wheel dist

The trial environment sees this interpreter's packages but not its editable installation, so
nothing is downloaded and the package that is imported is the one in the wheel.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from tools.check_tree import ROOT, files_of_the_tree

NEEDED = ("gtsvj_reward/py.typed", "gtsvj_reward/integrations/__init__.py")

ASSET_SUFFIXES = (".safetensors", ".json", ".md")

TRIAL = """
import gtsvj_reward, gtsvj_reward.integrations, pathlib, sys
for module in (gtsvj_reward, gtsvj_reward.integrations):
    place = pathlib.Path(module.__file__)
    if not place.is_relative_to(sys.prefix):
        sys.exit(f"{module.__name__} was imported from {place}, not from the wheel")
"""


def only(folder: Path, pattern: str) -> Path:
    """The one file that matches; exits when there are none or several."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"expected one {pattern} in {folder}, found {[path.name for path in found]}")
    return found[0]


def files_to_ship() -> set[str]:
    """Paths that the wheel must hold: the package, with `integrations/` moved inside it."""
    shipped = {name for name in files_of_the_tree() if (ROOT / name).is_file()}
    core = {name for name in shipped if name.startswith("gtsvj_reward/")}
    return core | {f"gtsvj_reward/{name}" for name in shipped if name.startswith("integrations/")}


def check_wheel(wheel: Path) -> None:
    """Exits when the wheel lacks a file, or holds one that is not the package's."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = files_to_ship()
    missing = sorted(expected - names) + [name for name in NEEDED if name not in names]
    assets = [name for name in names if name.startswith("gtsvj_reward/assets/")]
    missing += [
        f"gtsvj_reward/assets/*{suffix}"
        for suffix in ASSET_SUFFIXES
        if not any(name.endswith(suffix) for name in assets)
    ]
    if missing:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}: see package-data in pyproject.toml")
    if stray := sorted(names - expected):
        sys.exit(f"{wheel.name} holds files that are not the package's: {', '.join(stray)}")


def check_sdist(sdist: Path) -> None:
    """Exits if the sdist lacks a file that the wheel needs."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    moved = ("gtsvj_reward/integrations/", "integrations/")
    inside = {name.replace(*moved) for name in files_to_ship()}
    if missing := sorted((inside | {"LICENSE", "README.md", "pyproject.toml"}) - names):
        sys.exit(f"{sdist.name} lacks {', '.join(missing)}")


def try_wheel(wheel: Path) -> None:
    """Install the wheel into a new environment; import it and call its command from elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        venv.create(place / "venv", symlinks=True)
        python = place / "venv" / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-deps", "--no-index", str(wheel.resolve())]
        subprocess.run(pip, cwd=place, check=True)
        site = next((place / "venv").glob("lib/python*/site-packages"))
        # A folder that a .pth file names is searched, but its own .pth files are not obeyed.
        (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        for command in ([python, "-c", TRIAL], [python.with_name("gtsvj"), "--help"]):
            trial = subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE)
            if trial.returncode:
                sys.exit(f"`{Path(command[0]).name} {command[1]}` failed with {wheel.name}")


if __name__ == "__main__":
    dist = Path(sys.argv[1])
    check_wheel(only(dist, "*.whl"))
    check_sdist(only(dist, "*.tar.gz"))
    try_wheel(only(dist, "*.whl"))
