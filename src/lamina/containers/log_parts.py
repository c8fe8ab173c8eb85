"""The files of one log: the present part, and `<log>.1` (youngest) to `<log>.N` that were put aside (blocking).

Putting a part aside is done in an order that can be finished after a kill -9: the next part is made under a name of its
own, the caller records where in the journal it begins, and only then the files are renamed. Numbers may have gaps after
such an end; what reads goes by the numbers that are there.

Source: moby daemon/logger/loggerutils/logfile.go: names, order, and when a part is full.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from lamina.changeset.compression import gzipped
from lamina.containers.log_options import NO_ROTATION, Rotation

_COPY_BYTES = 1 << 20


class LogParts:
    """The log of a running container, open for appending. One thread writes; others may ask for parts meanwhile."""

    def __init__(self, current: Path, rotation: Rotation = NO_ROTATION, *, next_inode: int | None = None) -> None:
        """`next_inode`: the part that a rotation which was cut short had recorded already; it is finished now."""
        self.current = current
        self.rotation = rotation
        self.rotations = 0
        self._lock = threading.Lock()
        self._finish_rotation(next_inode)
        self._fd = os.open(current, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._fd)
        self.size, self.inode = status.st_size, status.st_ino

    @property
    def room_bytes(self) -> int:
        """How much fits into the present part."""
        return (1 << 62) if self.rotation.part_bytes is None else max(0, self.rotation.part_bytes - self.size)

    def write(self, data: bytes) -> int:
        """Append; returns how much was taken. Raises OSError when the disk is full."""
        done = os.write(self._fd, data)
        self.size += done
        return done

    def rotate(self, record: Callable[[int], None]) -> None:
        """Put the present part aside and go on with an empty one; `record` is told its inode before it counts."""
        fresh = self._next
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            record(os.fstat(fd).st_ino)
            with self._lock:
                self._exchange()
                self.rotations += 1
                os.close(self._fd)
                self._fd, self.size, self.inode = fd, 0, os.fstat(fd).st_ino
        except BaseException:
            if self._fd != fd:
                os.close(fd)
            raise
        if self.rotation.compress:
            self._compress()

    def open_parts(self, after: int | None = None) -> tuple[int, list[int]]:
        """The parts, oldest first, as open descriptors (the caller closes them), and the count of rotations now.

        `after`: only those younger than the one that was present when `rotations` had this value. Gzipped parts are
        recognised by their first bytes.
        """
        with self._lock:
            wanted = None if after is None else self.rotations - after - 1
            return self.rotations, open_parts(self.current, wanted)

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def _next(self) -> Path:
        return Path(f"{self.current}.next")

    def _finish_rotation(self, next_inode: int | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.current}.1.gz.tmp")
        try:
            found = os.stat(self._next).st_ino
        except FileNotFoundError:
            return
        if found == next_inode:
            self._exchange()
        else:
            os.unlink(self._next)  # never recorded, so nothing was written into it

    def _exchange(self) -> None:
        """The renames; each one may be the last that is done, and all of them again is fine."""
        aside = self.rotation.parts - 1
        present = self.current.exists()
        if present and aside > 0:
            numbers = numbers_of(self.current)
            free = next(number for number in range(1, len(numbers) + 2) if number not in numbers)
            for number in range(free - 1, 0, -1):
                _shift(self.current, number)
            os.rename(self.current, f"{self.current}.1")
        for number in numbers_of(self.current):
            if number > aside:
                _remove(self.current, number)
        os.rename(self._next, self.current)

    def _compress(self) -> None:
        """`<log>.1` becomes `<log>.1.gz`; until that is whole, the plain one stays."""
        plain, packed = f"{self.current}.1", f"{self.current}.1.gz"
        half = f"{packed}.tmp"
        try:
            with open(plain, "rb") as source, open(half, "wb", opener=_private) as target:
                target.writelines(gzipped(iter(lambda: source.read(_COPY_BYTES), b"")))
        except FileNotFoundError:
            return
        with self._lock:
            os.rename(half, packed)
            os.unlink(plain)


def numbers_of(current: Path) -> list[int]:
    """The numbers of the parts that were put aside, youngest first."""
    pattern = re.compile(re.escape(current.name) + r"\.(\d{1,9})(\.gz)?")
    try:
        found = {int(match[1]) for name in os.listdir(current.parent) if (match := pattern.fullmatch(name))}
    except FileNotFoundError:
        return []
    return sorted(found)


def open_parts(current: Path, aside: int | None = None) -> list[int]:
    """Descriptors of the log's parts, oldest first; `aside`: only so many of those that were put aside."""
    numbers = numbers_of(current)
    chosen = numbers if aside is None else numbers[: max(0, aside)]
    opened: list[int] = []
    try:
        for number in reversed(chosen):
            # Both are there when compressing was cut short after it had succeeded.
            for name in (f"{current}.{number}.gz", f"{current}.{number}"):
                with contextlib.suppress(FileNotFoundError):
                    opened.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
                    break
        with contextlib.suppress(FileNotFoundError):
            opened.append(os.open(current, os.O_RDONLY | os.O_CLOEXEC))
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def _shift(current: Path, number: int) -> None:
    for ending in ("", ".gz"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{current}.{number}{ending}", f"{current}.{number + 1}{ending}")


def _remove(current: Path, number: int) -> None:
    for ending in ("", ".gz"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{current}.{number}{ending}")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CLOEXEC, 0o640)
