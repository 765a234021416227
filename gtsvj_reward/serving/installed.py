"""Checks early that the server's dependencies are installed."""

from importlib.util import find_spec


def require_server(*further: str) -> None:
    """Raise an error without FastAPI, uvicorn or further packages.

    Args:
        further: names of packages that are extras of their own, e.g. `ray`.

    Raises:
        ImportError: with the names of all that are missing, and what to install.
    """
    missing = [name for name in ("fastapi", "uvicorn", *further) if find_spec(name) is None]
    if missing:
        extras = ",".join(("serve", *further))
        raise ImportError(
            f"the server needs {' and '.join(missing)}: pip install 'gtsvj-reward[{extras}]'"
        )
