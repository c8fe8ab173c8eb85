from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lamina.kernel import libc


def test_a_failure_carries_errno_and_path(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        libc.openat2(-100, missing, os.O_RDONLY)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == os.fspath(missing)


def test_a_path_that_is_not_utf8_comes_back_as_it_was(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff"
    with pytest.raises(FileNotFoundError) as caught:
        libc.umount2(name) if os.geteuid() == 0 else libc.openat2(-100, name, os.O_RDONLY)
    assert os.fsencode(caught.value.filename) == name


def test_entry_types_are_those_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    found = libc.entry_types(tmp_path)
    assert {name: found[name] for name in (b"d", b"f", b"l")} == {b"d": 4, b"f": 8, b"l": 10}


def test_entry_types_of_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        libc.entry_types(tmp_path / "missing")


def test_proc_is_proc() -> None:
    assert libc.file_system_type("/proc") == 0x9FA0


def test_syncfs_of_a_bad_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        libc.syncfs(-1)


def test_rename_without_replacing(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    with pytest.raises(FileExistsError):
        libc.renameat2(tmp_path / "one", tmp_path / "two", libc.RENAME_NOREPLACE)
    libc.renameat2(tmp_path / "one", tmp_path / "two", libc.RENAME_EXCHANGE)
    assert (tmp_path / "one").read_text() == "2"
