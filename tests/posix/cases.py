"""The register of cases, and the place each works in.

A case is a generator: what it needs is made before its first `yield`, what is promised is checked after it. So the same
case runs on one directory from end to end, and on a union whose read-only branch was prepared before the mount: then
every file that it finds is one that the union has to copy up, hide or rename.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

OTHER, THIRD = 12345, 23456
"""Users (and groups of the same number) that are not root."""

_NUMBERS = {
    "x86_64": {"setgroups": 116, "setresuid": 117, "setresgid": 119},
    "aarch64": {"setgroups": 159, "setresuid": 147, "setresgid": 149},
}
_libc = ctypes.CDLL(None, use_errno=True)


class Place:
    """A directory of one case's own; `root` changes between the preparation and the checks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def file(self, name: str, data: bytes = b"content", mode: int = 0o644) -> Path:
        place = self.root / name
        place.write_bytes(data)
        place.chmod(mode)
        return place

    def directory(self, name: str, mode: int = 0o755) -> Path:
        place = self.root / name
        place.mkdir(parents=True)
        place.chmod(mode)
        return place

    def names(self, below: str = ".") -> list[str]:
        return sorted(os.listdir(self.root / below))


Steps = Callable[[Place], Iterator[None]]


@dataclass(frozen=True)
class Case:
    """One promise."""

    name: str
    steps: Steps

    def begin(self, place: Place) -> Iterator[None]:
        """Prepare; what is left of the generator are the checks."""
        running = self.steps(place)
        next(running)
        return running


CASES: list[Case] = []


def case(steps: Steps) -> Steps:
    """Register a case; its name is the function's."""
    CASES.append(Case(steps.__name__, steps))
    return steps


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """The block must fail with one of these error numbers."""
    wanted = [errno.errorcode[number] for number in numbers]
    found: int | None = None
    try:
        yield
    except OSError as error:
        found = error.errno
    assert found is not None, f"it was not refused with {wanted}"
    assert found in numbers, f"{errno.errorcode.get(found)} and not {wanted}"


def as_user(uid: int, work: Callable[[], T], *, gid: int | None = None, groups: tuple[int, ...] = ()) -> T:
    """Do something as another user, in a thread of its own: the kernel keeps users and capabilities per thread."""
    found: list[T] = []
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            _become("setgroups", len(groups), (ctypes.c_uint32 * max(1, len(groups)))(*groups))
            group = uid if gid is None else gid
            _become("setresgid", group, group, group)
            _become("setresuid", uid, uid, uid)
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _become(call: str, *arguments: object) -> None:
    number = _NUMBERS[platform.machine()][call]
    if _libc.syscall(ctypes.c_long(number), *arguments):
        raise OSError(ctypes.get_errno(), call)


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    """A descriptor for the length of a block."""
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def link_descriptor(fd: int, path: Path) -> None:
    """Give an open file a (new) name. Python's own `os.link` does not ask the kernel to follow."""
    at_fdcwd, at_symlink_follow = ctypes.c_int(-100), ctypes.c_int(0x400)
    if _libc.linkat(at_fdcwd, b"/proc/self/fd/%d" % fd, at_fdcwd, os.fsencode(path), at_symlink_follow):
        raise OSError(ctypes.get_errno(), "linkat")


def mode_of(path: Path) -> int:
    return os.lstat(path).st_mode & 0o7777


def past(path: Path) -> None:
    """Give a name times long ago, so that a change of them shows."""
    os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


def touched(path: Path) -> bool:
    """Was the modification time set since `past`?"""
    return os.lstat(path).st_mtime_ns != 10**18
