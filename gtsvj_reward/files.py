"""Files on disk: replaced in one step when written, rejected by name when they are damaged."""

import hashlib
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
"""First bytes of what `torch.save` and `pickle` write."""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/name of a model hub, and is not plainly a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or all of the new, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(path)


def remove_parts(path: Path) -> None:
    """Remove what runs that were killed while writing a file left beside it; see `write_bytes`."""
    for part in path.parent.glob(f".{escape(path.name)}.*.part"):
        part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text in one step; see `write_bytes`."""
    write_bytes(path, text.encode())


def whole_lines(path: Path) -> list[bytes]:
    """Lines with their ends; what follows the last end was torn off and is left out."""
    lines = path.read_bytes().split(b"\n")
    return [line + b"\n" for line in lines[:-1]]


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata in one step; see `write_bytes`."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata=metadata))


class UnsoundFileError(ValueError):
    """A file that is not a whole safetensors file."""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file, open for reading tensors and metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsoundFileError: if it is not a whole safetensors file; a pickle is named as one.
    """
    check_safetensors_start(path)
    try:
        with safe_open(path, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise UnsoundFileError(
            f"{path} is not a whole safetensors file ({error}): it is of another kind, cut short "
            "or damaged; copy or write it again"
        ) from error


def read_safetensors(
    path: Path, names: Container[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file, and its metadata; see `open_safetensors` for what is refused.

    Args:
        path: the file.
        names: read only tensors whose names are in it; None reads all.
    """
    with open_safetensors(path) as opened:
        wanted = [name for name in list(opened.keys()) if names is None or name in names]
        return {name: opened.get_tensor(name) for name in wanted}, opened.metadata() or {}


def check_safetensors_start(path: Path) -> None:
    """Refuse a missing file and one that starts like a pickle.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsoundFileError: if it looks like the output of `torch.save` or `pickle`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with path.open("rb") as opened:
        start = opened.read(9)
    # A safetensors file has the length of its header, which may look like anything, then "{".
    if start.startswith(PICKLE_STARTS) and start[8:] != b"{":
        raise UnsoundFileError(
            f"{path} looks like a pickle (torch.save), which can run code when it is read: "
            "convert it to safetensors where you trust it"
        )


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key under which `frame2.png` comes before `frame10.png`."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
