from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.errors import Unsupported
from lamina.kernel import xattr


def test_attributes_of_paths_and_open_files(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        for file in (os.fspath(path), os.fsencode(path), fd):
            assert xattr.get(file, "user.note") is None
            xattr.put(file, "user.note", b"\x00\xff")
            assert xattr.get(file, "user.note") == b"\x00\xff"
            assert xattr.read_all(file)["user.note"] == b"\x00\xff"
            xattr.drop(file, "user.note")
            xattr.drop(file, "user.note")
            assert "user.note" not in xattr.names(file)
    finally:
        os.close(fd)


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "l").symlink_to("f")
    xattr.put(os.fspath(tmp_path / "f"), "user.note", b"x")
    assert xattr.get(os.fspath(tmp_path / "l"), "user.note") is None


def test_a_file_system_without_attributes_is_told_apart() -> None:
    assert xattr.get("/proc/self/status", "user.note") is None
    assert xattr.names("/proc/self/status") == []
    with pytest.raises(Unsupported, match="does not keep"):
        xattr.put("/proc/self/status", "user.note", b"x")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        xattr.get(os.fspath(tmp_path / "missing"), "user.note")
