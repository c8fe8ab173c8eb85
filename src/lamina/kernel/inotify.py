"""Being told that files have grown (blocking, but nothing here waits).

Source: inotify(7).
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from lamina.kernel import libc

_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 << 10
OVERFLOW = -1
"""Among the watches of `changed`: events were lost, anything may have changed."""


class Inotify:
    """One descriptor (readable when something changed) for many watched files."""

    def __init__(self) -> None:
        self._fd = libc.inotify_init1(libc.IN_CLOEXEC | libc.IN_NONBLOCK)

    def fileno(self) -> int:
        return self._fd

    def watch(self, path: Path) -> int:
        """Tell when the file is written to; gives the number that `changed` will name."""
        return libc.inotify_add_watch(self._fd, path, libc.IN_MODIFY)

    def unwatch(self, watch: int) -> None:
        """Stop telling. A file that is gone already is fine."""
        try:
            libc.inotify_rm_watch(self._fd, watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel dropped the watch together with the file
                raise

    def changed(self) -> set[int]:
        """The watches with news since the last call; never waits."""
        try:
            raw = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return set()
        found: set[int] = set()
        at = 0
        while at < len(raw):
            watch, _mask, _cookie, name_bytes = _EVENT.unpack_from(raw, at)
            found.add(watch)
            at += _EVENT.size + name_bytes
        return found

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
