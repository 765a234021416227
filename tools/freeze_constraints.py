"""Write the versions installed beside this interpreter as pip constraints.

    .venv/bin/python -m tools.freeze_constraints constraints.txt

A version that needs a newer Python than the package's own lowest one is marked, so that older
interpreters are left to find a version of their own. Local labels (`+cpu`) are dropped: which
build of torch is taken is the registry's affair.
"""

import re
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path

NOT_PINNED = {"gtsvj-reward", "pip", "setuptools", "wheel"}

HEADER = """\
# Versions that the tests and the demo were run with, written by `make constraints`.
# Use: pip install -c constraints.txt -e '.[dev]'
"""


def lowest_python(requirement: str | None) -> tuple[int, int]:
    """The (major, minor) of the `>=` clause in a Requires-Python; (3, 0) without one."""
    found = re.search(r">=?\s*(\d+)\.(\d+)", requirement or "")
    return (int(found[1]), int(found[2])) if found else (3, 0)


def frozen() -> list[str]:
    """One constraint for each installed distribution, sorted by name."""
    ours = lowest_python(distribution("gtsvj-reward").metadata["Requires-Python"])
    lines = []
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        needs = lowest_python(found.metadata["Requires-Python"])
        marker = f' ; python_version >= "{needs[0]}.{needs[1]}"' if needs > ours else ""
        if name not in NOT_PINNED:
            lines.append(f"{name}=={found.version.partition('+')[0]}{marker}\n")
    return sorted(set(lines))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(HEADER + "".join(frozen()))
