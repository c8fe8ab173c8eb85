"""flock(2), fcntl(2) locks, and who is told of changes by inotify(7)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from lamina.kernel import libc
from tests.posix.cases import Place, case, opened, refused

_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")


def lock(fd: int, kind: int, start: int, length: int) -> None:
    """A lock of an open file description: two descriptors of one process exclude each other."""
    fcntl.fcntl(fd, _OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


@case
def a_whole_file_is_locked_once(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDWR) as one, opened(at / "f", os.O_RDWR) as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case
def a_shared_lock_is_shared(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as one, opened(at / "f", os.O_RDONLY) as two:
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with refused(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case
def a_lock_ends_with_its_descriptor(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDWR) as one:
        with opened(at / "f", os.O_RDWR) as two:
            fcntl.flock(two, fcntl.LOCK_EX)
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case
def a_lock_holds_over_the_first_write(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        with opened(at / "f", os.O_RDWR) as two:
            os.write(two, b"x")
            with refused(errno.EWOULDBLOCK):
                fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case
def ranges_are_locked_apart(at: Place) -> Iterator[None]:
    at.file("f", b"x" * 100)
    yield
    with opened(at / "f", os.O_RDWR) as one, opened(at / "f", os.O_RDWR) as two:
        lock(one, fcntl.F_WRLCK, 0, 50)
        lock(two, fcntl.F_WRLCK, 50, 50)
        with refused(errno.EAGAIN, errno.EACCES):
            lock(two, fcntl.F_WRLCK, 49, 1)
        lock(one, fcntl.F_UNLCK, 0, 50)
        lock(two, fcntl.F_WRLCK, 0, 100)


@case
def a_write_lock_needs_a_descriptor_for_writing(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    with opened(at / "f", os.O_RDONLY) as fd:
        lock(fd, fcntl.F_RDLCK, 0, 1)
        with refused(errno.EBADF):
            lock(fd, fcntl.F_WRLCK, 0, 1)


@case
def another_process_meets_the_lock(at: Place) -> Iterator[None]:
    import subprocess
    import sys

    at.file("f")
    yield
    code = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with opened(at / "f", os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        told = subprocess.run([sys.executable, "-S", "-c", code, at / "f"], check=False, capture_output=True)
        assert b"BlockingIOError" in told.stderr
        fcntl.lockf(fd, fcntl.LOCK_UN)
        assert subprocess.run([sys.executable, "-S", "-c", code, at / "f"], check=False).returncode == 0


@case
def who_watches_a_file_is_told_of_a_write(at: Place) -> Iterator[None]:
    at.file("f")
    yield
    watcher = libc.inotify_init1(libc.IN_NONBLOCK | libc.IN_CLOEXEC)
    try:
        libc.inotify_add_watch(watcher, at / "f", libc.IN_MODIFY)
        with opened(at / "f", os.O_WRONLY) as fd:
            os.write(fd, b"x")
        assert struct.unpack_from("iI", os.read(watcher, 4096))[1] == libc.IN_MODIFY
    finally:
        os.close(watcher)


@case
def who_watches_a_directory_is_told_of_names(at: Place) -> Iterator[None]:
    at.directory("d")
    at.file("d/old")
    yield
    watcher = libc.inotify_init1(libc.IN_NONBLOCK | libc.IN_CLOEXEC)
    try:
        libc.inotify_add_watch(watcher, at / "d", 0x100 | 0x200)  # IN_CREATE, IN_DELETE
        (at / "d/new").write_bytes(b"")
        (at / "d/old").unlink()
        told = os.read(watcher, 4096)
        assert b"new\0" in told
        assert b"old\0" in told
    finally:
        os.close(watcher)
