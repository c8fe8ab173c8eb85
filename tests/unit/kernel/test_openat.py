from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.kernel.openat import make_dirs_in_root, open_in_root, open_parent_in_root, read_in_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with a file in it, and a secret of the host beside it."""
    (tmp_path / "secret").write_text("host")
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "secret").write_text("own")
    (inside / "etc/passwd").write_text("root:x:0:0")
    (inside / "up").symlink_to("../../../../../..")
    (inside / "absolute").symlink_to("/etc/passwd")
    (inside / "out").symlink_to("../secret")
    (inside / "loop").symlink_to("loop")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def content(fd: int) -> str:
    with os.fdopen(fd, "r") as file:
        return file.read()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("etc/passwd", "root:x:0:0"),
        ("/etc/passwd", "root:x:0:0"),
        ("../../etc/passwd", "root:x:0:0"),
        ("absolute", "root:x:0:0"),
        ("up/etc/passwd", "root:x:0:0"),
        ("out", "own"),
        (b"etc/./../secret", "own"),
    ],
)
def test_every_way_ends_inside(root: int, name: str | bytes, expected: str) -> None:
    assert content(open_in_root(root, name, os.O_RDONLY)) == expected


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "absolute", "out", "up/etc/passwd"])
def test_beneath_refuses_what_would_have_to_be_bent(root: int, name: str) -> None:
    with pytest.raises(OSError, match="Invalid cross-device link"):
        open_in_root(root, name, os.O_RDONLY, beneath=True)


def test_symlinks_can_be_refused(root: int) -> None:
    for keyword in ({"nofollow_last": True}, {"no_symlinks": True}):
        with pytest.raises(OSError, match="symbolic links"):
            open_in_root(root, "absolute", os.O_RDONLY, **keyword)
    with pytest.raises(OSError, match="symbolic links"):
        open_in_root(root, "up/etc/passwd", os.O_RDONLY, no_symlinks=True)
    assert content(open_in_root(root, "up/etc/passwd", os.O_RDONLY, nofollow_last=True)) == "root:x:0:0"


def test_a_loop_is_an_error(root: int) -> None:
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_in_root(root, "loop", os.O_RDONLY)
    assert caught.value.errno == errno.ELOOP


def test_magic_links_are_refused() -> None:
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="symbolic links") as caught:
            open_in_root(fd, "proc/self/root/etc/passwd", os.O_RDONLY)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ELOOP


def test_creating_sets_the_mode_and_stays_inside(root: int) -> None:
    old = os.umask(0)
    try:
        os.close(open_in_root(root, "../../new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
    finally:
        os.umask(old)
    assert os.stat("new", dir_fd=root).st_mode & 0o7777 == 0o640


def test_descriptors_are_not_inherited(root: int) -> None:
    fd = open_in_root(root, "secret", os.O_RDONLY)
    try:
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("etc/passwd", b"passwd"),
        ("absolute", b"absolute"),
        ("up/x", b"x"),
        ("etc/", b"etc"),
        ("etc/..", b"."),
        ("/", b"."),
    ],
)
def test_the_parent_is_found_without_looking_at_the_last_name(root: int, name: str, last: bytes) -> None:
    fd, found = open_parent_in_root(root, name)
    try:
        assert found == last
        inside = os.readlink(f"/proc/self/fd/{root}")
        assert os.readlink(f"/proc/self/fd/{fd}") in {inside, f"{inside}/etc"}
    finally:
        os.close(fd)


def test_reading_is_bounded_and_takes_only_regular_files(root: int) -> None:
    assert read_in_root(root, "etc/passwd", 4) == b"root"
    os.mkfifo("fifo", dir_fd=root)
    for name in ("fifo", "etc"):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read_in_root(root, name, 4)


def test_directories_are_made_inside(root: int) -> None:
    os.close(make_dirs_in_root(root, "up/../a/b/c", 0o700))
    assert os.stat("a/b/c", dir_fd=root).st_mode & 0o777 == 0o700
    with pytest.raises(NotADirectoryError):
        make_dirs_in_root(root, "secret/x")
    with pytest.raises(OSError, match="symbolic links"):
        make_dirs_in_root(root, "loop/x")
