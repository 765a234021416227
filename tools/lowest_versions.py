"""Print, as pip constraints, the lowest version that each requirement of the package admits.

Reads the installed metadata, so install first: `pip install --no-deps -e .`
"""

import re
import sys
from importlib.metadata import requires

OF_THE_TIME = ["pyarrow<20", "setuptools<82"]
"""Indirect dependencies whose newest versions are incompatible with our oldest ones."""


def floor(requirement: str) -> str:
    """`"torch>=2.4; extra == 'x'"` -> `"torch==2.4"`.

    Raises:
        ValueError: if the requirement has no lower bound.
    """
    found = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement.replace(" ", ""))
    if found is None:
        raise ValueError(f"`{requirement}` in pyproject.toml has no lower bound; write `name>=1.2`")
    return f"{found[1]}=={found[2]}"


def main() -> None:
    """Print one line per requirement, our own extras left out."""
    wanted = requires("gtsvj-reward") or []
    floors = {floor(line) for line in wanted if not line.startswith("gtsvj-reward")}
    sys.stdout.write("".join(f"{line}\n" for line in [*sorted(floors), *OF_THE_TIME]))


if __name__ == "__main__":
    main()
