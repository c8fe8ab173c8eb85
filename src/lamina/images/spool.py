"""Bytes on their way through a nameless file: one thread writes, another follows (blocking).

So a layer that comes in faster than it is unpacked waits on disk and not in memory, and the next one can begin.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from lamina.errors import DataLoss, StorageFull


class Spool:
    """A file without a name that grows until `done`; it is gone when closed, or when the process ends."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by `close`
        self._fd = self._file.fileno()
        self._written = 0
        self._is_done = False
        self._is_abandoned = False
        self._changed = threading.Condition()

    @property
    def size_bytes(self) -> int:
        """What was written so far."""
        return self._written

    def fileno(self) -> int:
        """The file, for sendfile(2)."""
        return self._fd

    def write(self, piece: memoryview) -> None:
        """Append. Raises StorageFull."""
        left = piece
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StorageFull("no space left on device while an archive was read") from error
            raise
        with self._changed:
            self._written += len(piece)
            self._changed.notify_all()

    def done(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._is_done = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """What is missing will never come; whoever follows is told so. Again is fine."""
        with self._changed:
            self._is_abandoned = not self._is_done
            self._changed.notify_all()

    def wait_beyond(self, offset: int) -> int:
        """How much there is, once it is more than `offset`; `offset` itself at the end.

        Raises:
            DataLoss: it was abandoned.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._written > offset or self._is_done or self._is_abandoned)
            if self._is_abandoned:
                raise DataLoss("the archive ends in the middle of a layer")
            return self._written

    def from_start(self) -> BinaryIO:
        """What was written, as a file of its own that the caller closes."""
        return open(f"/proc/self/fd/{self._fd}", "rb")

    def close(self) -> None:
        """Give the room back. Again is fine."""
        self._file.close()


class SpoolReader:
    """Reads a spool from its start, waiting for what is still to come."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, everything when negative; b"" at the end. Raises DataLoss."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        there = self._spool.wait_beyond(self._at)
        found = os.pread(self._spool.fileno(), min(size, there - self._at), self._at)
        self._at += len(found)
        return found
