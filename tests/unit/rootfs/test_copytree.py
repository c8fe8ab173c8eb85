from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lamina.rootfs.copytree import copy_tree
from tests.conformance.trees import (
    Chmod,
    Chown,
    Edit,
    HardLink,
    MakeDir,
    Node,
    SetXattr,
    Symlink,
    Write,
    apply_edits,
    shown,
)

ORDINARY: tuple[Edit, ...] = (
    MakeDir("d", 0o1777),
    MakeDir("d/closed", 0o000),
    Write("d/f", b"content" * 1000, 0o4755),
    Write("empty", b"", 0o400),
    Write(os.fsdecode(b"\xff"), b"x"),
    HardLink("d/same", "d/f"),
    HardLink("same", "d/f"),
    Symlink("l", "../../outside"),
    Node("fifo", stat.S_IFIFO, mode=0o640),
    SetXattr("d/f", "user.note", b"\x00\xff"),
    SetXattr("d", "user.note", b"dir"),
)
FOR_ROOT: tuple[Edit, ...] = (
    Node("null", stat.S_IFCHR, os.makedev(1, 3), 0o666),
    Node("whiteout", stat.S_IFCHR, 0, 0o000),
    Node("socket", stat.S_IFSOCK, mode=0o600),
    Chown("l", 5, 6),
    Chown("d/f", 7, 8),
    Chmod("d/f", 0o6755),
    SetXattr("d/f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),
    SetXattr("d", "trusted.overlay.opaque", b"y"),
)


def test_a_copy_shows_what_the_original_shows(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(0o750)
    apply_edits(source, ORDINARY)
    if os.geteuid() == 0:
        apply_edits(source, FOR_ROOT)
    old = os.umask(0o077)
    try:
        copy_tree(source, tmp_path / "target")
    finally:
        os.umask(old)
    assert shown(tmp_path / "target") == shown(source)
    assert shown(source)["same"].links == ("d/f", "d/same", "same")


def test_times_are_exact_for_directories_too(tmp_path: Path) -> None:
    (tmp_path / "source/d").mkdir(parents=True)
    (tmp_path / "source/d/f").touch()
    for name in ("source/d/f", "source/d", "source"):
        os.utime(tmp_path / name, ns=(111_222_333_444_555_666, 222_333_444_555_666_777))
    copy_tree(tmp_path / "source", tmp_path / "target")
    for name in ("target/d/f", "target/d", "target"):
        assert (tmp_path / name).stat().st_mtime_ns == 222_333_444_555_666_777


def test_an_empty_directory_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir(0o711)
    (tmp_path / "target").mkdir(0o755)
    copy_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").stat().st_mode & 0o7777 == 0o711


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    with pytest.raises(FileExistsError):
        copy_tree(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target/f").read_text() == "target"


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source/f").open("wb") as file:
        for at in (0, 1 << 30, 1 << 33):
            file.seek(at)
            file.write(b"data at %d" % at)
        file.truncate(1 << 34)
    copy_tree(tmp_path / "source", tmp_path / "target")
    status = (tmp_path / "target/f").stat()
    assert status.st_size == 1 << 34
    assert status.st_blocks * 512 < 1 << 20
    with (tmp_path / "target/f").open("rb") as file:
        for at in (0, 1 << 30, 1 << 33):
            file.seek(at)
            assert file.read(20).rstrip(b"\0") == b"data at %d" % at


def test_a_tree_too_deep_is_refused_not_crashed_on(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    for _ in range(450):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    with pytest.raises(OSError, match=r"nested more than|Too many open files"):
        copy_tree(tmp_path / "source", tmp_path / "target")
