"""What is written appears whole or not at all, whatever it is called."""

import resource
from contextlib import contextmanager

import pytest

from gtsvj_reward.files import (
    part_of,
    remove_parts,
    whole_files,
    whole_folder,
    write_bytes,
    write_text,
)


@contextmanager
def full_disk(free):
    """No file may exceed so many bytes, as if the disk had no room for more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_two_parts_are_called_alike(tmp_path):
    """Processes in containers have the same process id, also on one shared disk."""
    parts = {part_of(tmp_path / "a.bin").name for _ in range(100)}
    assert len(parts) == 100
    assert all(name.startswith(".a.bin.") and name.endswith(".part") for name in parts)


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "🎬" * 63])
def test_the_longest_names_can_be_written(tmp_path, name):
    other = tmp_path / f"{name[:-1]}x"
    left = part_of(other)
    left.write_bytes(b"torn")
    write_bytes(tmp_path / name, b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"
    remove_parts(tmp_path / name)
    assert left.exists(), "the part of another file"
    remove_parts(other)
    assert names(tmp_path) == [name]


def write_both(hidden):
    with hidden as part:
        write_text(part / "state.json", "new")
        write_text(part / "other.json", "n" * 100)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "run" / "state.json", "old")
    write_text(tmp_path / "run" / "other.json", "other")
    for write in (whole_folder, whole_files):
        with full_disk(10), pytest.raises(OSError, match=r"large: '.*other.json'"):
            write_both(write(tmp_path / "run"))
    assert (tmp_path / "run" / "state.json").read_text() == "old"
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["other.json", "state.json"]


def test_a_folder_is_replaced_and_files_join_others(tmp_path):
    write_text(tmp_path / "run" / "old.json", "old")
    with whole_files(tmp_path / "run", last="b.json") as part:
        write_text(part / "b.json", "b")
        write_text(part / "c.json", "c")
    assert names(tmp_path / "run") == ["b.json", "c.json", "old.json"]
    with whole_folder(tmp_path / "run") as part:
        write_text(part / "new.json", "new")
    assert names(tmp_path / "run") == ["new.json"]
    assert names(tmp_path) == ["run"]
