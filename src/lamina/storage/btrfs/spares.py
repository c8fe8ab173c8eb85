"""Snapshots of parents that are much used, made before they are asked for: a child is then a rename away (blocking).

A snapshot waits until the file system has committed, a rename does not; of two in a row, as a container needs them, the
second one's commit puts the first on disk too. A parent that was used twice gets a spare snapshot, which a thread makes
and replaces when it was taken. Only sealed layers are parents, so a spare never grows old. They lie in `scratch/`: what
a kill leaves there goes at the next start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel import btrfs
from lamina.kernel.libc import RENAME_NOREPLACE, renameat2
from lamina.storage.btrfs.limits import opened

_MUCH = 2
_PAUSE_S = 0.1
_MOST = 16
"""Spares at a time: each is a few kilobytes of metadata until its parent changes, which it never does."""


class Spares:
    """At most one spare for each parent. Thread-safe; who creates never waits for the thread."""

    def __init__(self, subvolumes: Path, scratch: Path, erase: Callable[[Path, str], None]) -> None:
        """`erase` removes a subvolume by directory and name."""
        self._subvolumes, self._scratch, self._erase = subvolumes, scratch, erase
        self._lock = threading.Condition()
        self._uses: dict[CacheId, int] = {}
        self._spares: dict[CacheId, str] = {}
        self._making: dict[CacheId, threading.Thread] = {}
        self._is_closed = False

    def take(self, parent: CacheId, name: str) -> bool:
        """Give the parent's spare this name among the layers; False when there is none.

        Raises FileExistsError.
        """
        with self._lock:
            spare = self._spares.pop(parent, None)
        if spare is None:
            return False
        try:
            renameat2(self._scratch / spare, self._subvolumes / name, RENAME_NOREPLACE)
        except OSError:
            self._erase(self._scratch, spare)
            raise
        return True

    def used(self, parent: CacheId) -> None:
        """A child of this parent was made: see to the next one's spare."""
        with self._lock:
            uses = self._uses[parent] = self._uses.get(parent, 0) + 1
            has_one = parent in self._spares or parent in self._making
            if uses < _MUCH or has_one or self._is_closed or len(self._spares) + len(self._making) >= _MOST:
                return
            thread = threading.Thread(target=self._make, args=(parent,), name="spare snapshot", daemon=True)
            self._making[parent] = thread
        thread.start()

    def drop(self, parent: CacheId) -> None:
        """The parent goes, and its spare before it."""
        with self._lock:
            self._uses.pop(parent, None)
            self._lock.notify_all()
            self._lock.wait_for(lambda: parent not in self._making)
            spare = self._spares.pop(parent, None)
        if spare is not None:
            self._erase(self._scratch, spare)

    def close(self) -> None:
        """No thread is left, and no spare. Twice is fine."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
            threads = list(self._making.values())
        for thread in threads:
            thread.join()
        for parent in list(self._spares):
            self.drop(parent)

    def _make(self, parent: CacheId) -> None:
        with self._lock:
            # Commits wait for each other, and the child's maker has more to write right away.
            self._lock.wait_for(lambda: not self._is_wanted(parent), _PAUSE_S)
            is_wanted = self._is_wanted(parent)
        name = self._snapshot(parent) if is_wanted else None
        with self._lock:
            if name is not None and self._is_wanted(parent):
                self._spares[parent] = name
                name = None
            del self._making[parent]
            self._lock.notify_all()
        if name is not None:
            self._erase(self._scratch, name)

    def _is_wanted(self, parent: CacheId) -> bool:
        return not self._is_closed and parent in self._uses

    def _snapshot(self, parent: CacheId) -> str | None:
        name = f"spare-{os.urandom(12).hex()}"
        try:
            with opened(self._subvolumes / parent) as parent_fd, opened(self._scratch) as scratch_fd:
                btrfs.create_snapshot(parent_fd, scratch_fd, name)
        except OSError:
            return None  # no room, say: who creates a layer will find out, and tell it
        return name
