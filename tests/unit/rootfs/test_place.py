"""Entries of an archive put into a directory of a container."""

import io
import os
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from lamina.changeset.tarcodec import TarReader
from lamina.errors import InvalidArgument, LaminaError, UnsafeArchive
from lamina.kernel import libc
from lamina.layers.rwtar import write_named
from lamina.rootfs import resource
from lamina.rootfs.place import Placer
from lamina.rootfs.remove import remove_tree
from lamina.rootfs.view import View


@contextmanager
def opened(root: Path) -> Iterator[View]:
    fd = os.open(root, os.O_RDONLY)
    try:
        yield View(root, fd)
    finally:
        os.close(fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    (found / "target").mkdir(parents=True)
    return found


def archive(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.uid, info.gid = os.geteuid(), os.getegid()
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def put(root: Path, data: bytes, *, into: str = "/target", keep_kinds: bool = False, owner=None) -> None:
    with opened(root) as view:
        fd = view.open(into, os.O_PATH)
        try:
            with Placer(view, fd, keep_kinds=keep_kinds, owner=owner) as placer:
                placer.place_all(TarReader(iter([data])))
        finally:
            os.close(fd)


def test_files_come_with_mode_and_time(root: Path) -> None:
    put(
        root, archive(entry("d", tarfile.DIRTYPE, mtime=5, mode=0o1750), (entry("d/f", mode=0o4755, mtime=7), b"hello"))
    )
    assert (root / "target/d/f").read_bytes() == b"hello"
    assert (root / "target/d/f").stat().st_mode & 0o7777 == 0o4755
    assert (root / "target/d/f").stat().st_mtime == 7
    assert (root / "target/d").stat().st_mtime == 5
    assert (root / "target/d").stat().st_mode & 0o7777 == 0o1750


def test_missing_parents_are_made_and_whiteout_names_are_plain_files(root: Path) -> None:
    (root / "target/kept").write_text("kept")
    put(root, archive((entry("a/b/c"), b"x"), (entry(".wh.kept"), b""), (entry(".wh..wh..opq"), b"")))
    assert (root / "target/a/b/c").read_bytes() == b"x"
    assert (root / "target/kept").read_text() == "kept"
    assert (root / "target/.wh.kept").exists()
    assert (root / "target/.wh..wh..opq").exists()


def test_existing_names_are_replaced_and_directories_merged(root: Path) -> None:
    (root / "target/d").mkdir()
    (root / "target/d/old").write_text("old")
    (root / "target/f").symlink_to("/etc/passwd")
    put(root, archive(entry("d", tarfile.DIRTYPE), (entry("d/new"), b"new"), (entry("f"), b"mine")))
    assert (root / "target/d/old").read_text() == "old"
    assert not (root / "target/f").is_symlink()
    assert (root / "target/f").read_bytes() == b"mine"


def test_kinds_are_kept_when_asked(root: Path) -> None:
    (root / "target/d").mkdir()
    (root / "target/f").write_text("f")
    with pytest.raises(InvalidArgument, match="cannot overwrite directory 'd' with non-directory"):
        put(root, archive((entry("d"), b"x")), keep_kinds=True)
    with pytest.raises(InvalidArgument, match="cannot overwrite non-directory 'f' with directory"):
        put(root, archive(entry("f", tarfile.DIRTYPE)), keep_kinds=True)
    put(root, archive((entry("d"), b"x"), entry("f", tarfile.DIRTYPE)))
    assert (root / "target/d").read_bytes() == b"x"
    assert (root / "target/f").is_dir()


def test_links_point_inside_the_target(root: Path) -> None:
    put(
        root,
        archive(
            (entry("a"), b"a"), entry("hard", tarfile.LNKTYPE, linkname="a"), entry("s", tarfile.SYMTYPE, linkname="a")
        ),
    )
    assert (root / "target/hard").stat().st_ino == (root / "target/a").stat().st_ino
    assert os.readlink(root / "target/s") == "a"
    with pytest.raises(UnsafeArchive):
        put(root, archive(entry("evil", tarfile.LNKTYPE, linkname="../../secret")))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
def test_a_name_that_leaves_the_target_is_refused(root: Path, name: str) -> None:
    with pytest.raises(UnsafeArchive):
        put(root, archive((entry(name), b"x")))
    assert sorted(os.listdir(root.parent)) == ["root"]


def test_a_symlink_on_the_way_is_followed_inside_the_root_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (root / "inside").mkdir()
    (root / "target/absolute").symlink_to("/inside")
    (root / "target/relative").symlink_to("../inside")
    (root / "target/evil").symlink_to(tmp_path / "host")
    put(root, archive((entry("absolute/one"), b"1"), (entry("relative/two"), b"2")))
    assert sorted(os.listdir(root / "inside")) == ["one", "two"]
    with pytest.raises((LaminaError, OSError)):
        put(root, archive((entry("evil/three"), b"3")))
    assert os.listdir(tmp_path / "host") == []


def test_a_sparse_file_keeps_its_holes(root: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = entry("sparse")
        body = b"1\n1048576\n4\n".ljust(512, b"\0") + b"data"
        info.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse", "GNU.sparse.realsize": "2097152",
        }  # fmt: skip
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    put(root, out.getvalue())
    found = (root / "target/sparse").stat()
    assert found.st_size == 2097152
    assert found.st_blocks * 512 < 1 << 20
    assert (root / "target/sparse").read_bytes()[1048576:1048580] == b"data"


@pytest.mark.root
def test_owners_are_the_archives_or_the_one_given(root: Path) -> None:
    members = archive(
        (entry("f", uid=12, gid=34), b""),
        entry("d", tarfile.DIRTYPE, uid=12, gid=34),
        entry("s", tarfile.SYMTYPE, uid=12, gid=34, linkname="f"),
    )
    put(root, members)
    assert {os.lstat(root / "target" / name)[4:6] for name in "fds"} == {(12, 34)}
    put(root, members, owner=(5, 6))
    assert {os.lstat(root / "target" / name)[4:6] for name in "fds"} == {(5, 6)}


@pytest.mark.root
def test_devices_and_fifos_are_made(root: Path) -> None:
    null = entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    put(root, archive(null, entry("fifo", tarfile.FIFOTYPE, mode=0o622, uid=3)))
    made = (root / "target/null").stat()
    assert stat.S_ISCHR(made.st_mode)
    assert made.st_rdev == os.makedev(1, 3)
    assert made.st_mode & 0o7777 == 0o666
    assert stat.S_ISFIFO((root / "target/fifo").stat().st_mode)
    assert (root / "target/fifo").stat().st_uid == 3


class Swapper:
    """A process inside that swaps a directory with a symlink to the host, as fast as it can."""

    def __init__(self, one: Path, other: Path) -> None:
        self._fds = [os.open(path.parent, os.O_RDONLY) for path in (one, other)]
        self._names = [one.name, other.name]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.swaps = 0

    def _run(self) -> None:
        while not self._end.is_set():
            for _ in range(50):
                with suppress(FileNotFoundError):  # replaced at this very moment
                    libc.renameat2(*self._names, libc.RENAME_EXCHANGE, old_fd=self._fds[0], new_fd=self._fds[1])
                    self.swaps += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for fd in self._fds:
            os.close(fd)


def restore(one: Path, other: Path, target: Path) -> None:
    """Put the symlink back when it was replaced: replacing it is right, but ends the race."""
    if not one.is_symlink() and not other.is_symlink():
        temporary = one.with_name("temporary")
        temporary.symlink_to(target)
        with suppress(OSError):
            libc.renameat2(temporary, other, libc.RENAME_EXCHANGE)
        remove_tree(temporary)


def test_nothing_of_the_host_is_read_or_written_while_names_are_swapped(root: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("secret")
    (host / "secret").chmod(0o600)
    before = (host.stat().st_mtime_ns, (host / "secret").stat().st_mode)
    (root / "target/dir").mkdir()
    (root / "target/dir/secret").write_text("harmless")
    (root / "target/link").symlink_to(host)
    (root / "target/file").write_text("harmless")
    (root / "target/filelink").symlink_to(host / "secret")
    data = archive(
        entry("dir", tarfile.DIRTYPE, mode=0o777),
        (entry("dir/new", mode=0o666), b"written"),
        entry("dir/sub", tarfile.DIRTYPE),
        (entry("dir/sub/new"), b"written"),
        entry("dir/fifo", tarfile.FIFOTYPE, mode=0o666),
        (entry("file", mode=0o666), b"written"),
        entry("file2", tarfile.LNKTYPE, linkname="file"),
    )
    through = archive((entry("dir/new", mode=0o666), b"written"), entry("dir/sub", tarfile.DIRTYPE, mode=0o777))
    rounds = 0
    deadline = time.monotonic() + 2
    with (
        Swapper(root / "target/dir", root / "target/link") as first,
        Swapper(root / "target/file", root / "target/filelink") as second,
    ):
        while time.monotonic() < deadline:
            rounds += 1
            restore(root / "target/dir", root / "target/link", host)
            restore(root / "target/file", root / "target/filelink", host / "secret")
            with suppress(LaminaError, OSError):
                put(root, through)
            with suppress(LaminaError, OSError):
                put(root, data)
            for path in ("/target/dir/secret", "/target/file", "/target/dir", "/target/", "/target/dir/"):
                out = io.BytesIO()
                with opened(root) as view:
                    try:
                        found = resource.find(view, path)
                    except OSError:
                        continue
                    try:
                        resource.describe(view, found)
                        resource.write_archive(found, write_named, out)
                    except OSError:
                        pass
                    finally:
                        found.close()
                assert b"secret\n" not in out.getvalue()
                assert not out.getvalue().endswith(b"secret")
                assert b"\0secret\0" not in out.getvalue()
    assert rounds > 20
    assert first.swaps > 1000
    assert second.swaps > 1000
    assert os.listdir(host) == ["secret"]
    assert (host / "secret").read_text() == "secret"
    assert (host.stat().st_mtime_ns, (host / "secret").stat().st_mode) == before
