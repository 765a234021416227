"""Files on disk: written atomically, and rejected by name if damaged."""

import errno
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

LONGEST_NAME = 100
"""Bytes of a name that parts show whole: with the rest they must not exceed 255."""

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


def part_of(path: Path) -> Path:
    """A unique hidden name beside a file or folder, for incomplete content.

    A process id is not unique: processes in different containers may have the same one.
    """
    return path.with_name(f"{_parts_start(path)}{socket.gethostname()[:40]}.{uuid4().hex}.part")


def _parts_start(path: Path) -> str:
    """Common prefix of the names of all parts of a file; long names are cut."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()
        name = f"{name[: LONGEST_NAME // 5]}-{digest[:16]}"  # a character has up to 4 bytes
    return f".{name}."


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old or the new content, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        with part.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk
        raise


def remove_parts(path: Path) -> None:
    """Remove incomplete parts of a file or folder that killed runs left beside it."""
    _remove(path.parent.glob(f"{escape(_parts_start(path))}*.part"))


def remove_parts_in(folder: Path) -> None:
    """Remove all incomplete parts that killed runs left in a folder."""
    _remove(folder.glob(".*.part"))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `path` when all of it is on disk.

    An existing `path` is replaced. If the block fails, `path` does not change.
    """
    part = part_of(path)
    try:
        part.mkdir(parents=True)
        yield part
        put_folder(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def whole_files(folder: Path, last: str | None = None) -> Iterator[Path]:
    """A hidden folder to write files into, which move to `folder` when all are on disk.

    Other files stay. If the block fails, no file changes.

    Args:
        folder: where the files go.
        last: name of the file without which the others do not count; it moves last.
    """
    part = part_of(folder / "files")
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            sync(file)
        if last is not None:
            (folder / last).unlink(missing_ok=True)
        for file in sorted(part.iterdir(), key=lambda file: file.name == last):
            file.replace(folder / file.name)
        sync(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_folder(part: Path, path: Path) -> None:
    """Wait until a folder's content is on disk, then rename it."""
    for file in [*part.rglob("*"), part]:
        sync(file)
    remove_folder(path)
    part.rename(path)
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it exists, so that it is never seen incomplete."""
    if path.exists():
        part = path.rename(part_of(path))
        shutil.rmtree(part)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def whole_lines(path: Path) -> list[bytes]:
    """Lines with their ends; what follows the last end was torn off and is left out."""
    lines = path.read_bytes().split(b"\n")
    return [line + b"\n" for line in lines[:-1]]


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata atomically; see `write_bytes`."""
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
    """Tensors and metadata of a file; for errors see `open_safetensors`.

    Args:
        path: the file.
        names: read only tensors whose names are in it; None reads all.
    """
    with open_safetensors(path) as opened:
        wanted = [name for name in list(opened.keys()) if names is None or name in names]
        return {name: opened.get_tensor(name) for name in wanted}, opened.metadata() or {}


def check_safetensors_start(path: Path) -> None:
    """Refuse a missing file, one that starts like a pickle and one that cannot be opened by name.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsoundFileError: if it looks like the output of `torch.save` or `pickle`, or its name is
            not UTF-8.
    """
    shown = os.fsencode(path).decode(errors="backslashreplace")
    if os.fsencode(shown) != os.fsencode(path):
        raise UnsoundFileError(f"{shown} has a name that is not UTF-8: rename it")
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


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Add the file and what to do to errors of a full disk.

    Raises:
        OSError: if the disk is full, or a quota or limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OSError(
            error.errno,
            f"{os.strerror(error.errno)}: {path} could not be written. Make room and run the same "
            "command again: it goes on where it was",
        ) from error
