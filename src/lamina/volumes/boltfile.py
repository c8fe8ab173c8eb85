"""A bbolt file that this process alone holds, committed without ever overwriting the last state (blocking).

Rules for editors: pages first, fsync, meta, fsync. A crash at any point leaves the old state or the new one, and
bbolt's own lock (flock) is held as long as the file is open, so that dockerd refuses a data root in use, and the other
way round.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from lamina.errors import Conflict
from lamina.kernel.durable import fsync_dir
from lamina.volumes.bolt import Bucket, Database, decode, new_file, plan_commit

_FIRST_SIZE = 32768
_MAX_BYTES = 256 << 20


class BoltFile:
    """The open database. `root` may be read at any time; changes count once `commit` has returned."""

    def __init__(self, path: Path) -> None:
        """Open, or make, the file and lock it.

        Raises:
            Conflict: another process has it.
            CorruptRecord: it is no database.
        """
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._lock()
            self._database = self._load()
        except BaseException:
            os.close(self._fd)
            raise
        self._is_open = True

    @property
    def root(self) -> Bucket:
        return self._database.root

    def commit(self, root: Bucket) -> None:
        """Make `root` the state; when this returns, it is on disk. On error the old state stays."""
        plan = plan_commit(self._database, root)
        if os.fstat(self._fd).st_size < plan.size_bytes:
            # Real blocks, not a hole: a full disk must show here, before anything depends on it.
            os.posix_fallocate(self._fd, 0, plan.size_bytes)
        for offset, content in plan.pages.items():
            _write_at(self._fd, content, offset)
        os.fsync(self._fd)
        _write_at(self._fd, plan.meta, plan.meta_offset)
        os.fsync(self._fd)
        self._database = plan.database

    def close(self) -> None:
        """Unlock and close. Twice is fine."""
        if self._is_open:
            self._is_open = False
            os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            raise Conflict(
                f"data root {self._path.parent.parent} is in use by another daemon (lamina or dockerd): "
                f"it holds {self._path}",
                hint=f"see which process it is: fuser {self._path}",
            ) from error

    def _load(self) -> Database:
        size = os.fstat(self._fd).st_size
        if size:
            with os.fdopen(os.dup(self._fd), "rb") as file:
                file.seek(0)
                return decode(file.read(_MAX_BYTES))
        data, database = new_file()
        _write_at(self._fd, data.ljust(_FIRST_SIZE, b"\0"), 0)
        os.fsync(self._fd)
        fsync_dir(self._path.parent)
        return database


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
