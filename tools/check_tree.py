"""Refuse what may not be committed: pickles, paths of somebody's machine, a lost link."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PICKLE_SUFFIXES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz"}

MACHINE_PATH = re.compile(
    rb"(?<![\w.:/~$}\])-])/(?:home|root|tmp|work|Users|opt|mnt|private|scratch)/[\w.-]+"
)

LINK = ("gtsvj_reward/integrations", "../integrations")


def files_of_the_tree() -> list[str]:
    """Tracked files and new ones that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listing.split("\0") if name})


def is_pickle(path: Path, content: bytes) -> bool:
    """By suffix, by a pickle's first and last byte, or as torch's zip of one."""
    if path.suffix in PICKLE_SUFFIXES:
        return True
    if content[:1] == b"\x80" and content[1:2] in b"\x02\x03\x04\x05" and content[-1:] == b".":
        return True
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".pkl") for name in archive.namelist())


def problems() -> list[str]:
    """One line per finding, `file[:line]: what is wrong`."""
    found = []
    for name in files_of_the_tree():
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if is_pickle(path, content):
            found.append(f"{name}: is a pickle or may hold one; store safetensors or JSON")
        if b"\0" in content:
            continue
        for number, line in enumerate(content.splitlines(), 1):
            if match := MACHINE_PATH.search(line):
                shown = match[0].decode(errors="replace")
                found.append(f"{name}:{number}: absolute path ({shown}); use a relative one")
    link = ROOT / LINK[0]
    if not link.is_symlink() or str(link.readlink()) != LINK[1]:
        found.append(f"{LINK[0]}: must be a link to {LINK[1]} (`ln -s {LINK[1]} {LINK[0]}`)")
    return found


if __name__ == "__main__":
    if lines := problems():
        sys.exit("\n".join(lines))
