"""Counted mounts over a driver: the first user mounts, the last one unmounts (blocking).

The counts live in memory. A daemon that starts finds the mounts of the one before it: a place that is already mounted
when it is first used counts as one, so that the container behind it keeps its root until it is released.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import Conflict, NoSuchLayer
from lamina.ids import CacheId
from lamina.kernel.mounts import Mount, is_mountpoint, mount, unmount
from lamina.storage.driver import StorageDriver


@dataclass(slots=True)
class _Use:
    """The users of one layer's mount; `waiting` keeps the entry alive while threads queue for its lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    waiting: int = 0
    looked: bool = False


class Mounts:
    """Mounts layers of one driver for as long as somebody uses them. Thread-safe; layers do not wait for each other."""

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._uses: dict[CacheId, _Use] = {}

    @contextmanager
    def mounted(self, cache_id: CacheId) -> Iterator[Path]:
        """The layer's tree for the length of a `with` block."""
        path = self.acquire(cache_id)
        try:
            yield path
        finally:
            self.release(cache_id)

    def acquire(self, cache_id: CacheId) -> Path:
        """Take one use of the layer's tree, mounting it if nobody has.

        Raises:
            NoSuchLayer: no such layer.
            OSError: the kernel refused; nothing is left mounted, no use is taken.
        """
        with self._using(cache_id) as use:
            tree = self._driver.tree(cache_id)
            if use.count == 0:
                self._mount(cache_id)
            use.count += 1
            return tree

    def release(self, cache_id: CacheId) -> None:
        """Give one use back; the last one unmounts.

        Raises:
            Conflict: nobody uses it.
        """
        with self._using(cache_id) as use:
            if use.count == 0:
                raise Conflict(f"layer {cache_id} is not mounted")
            use.count -= 1
            if use.count == 0:
                self._unmount(cache_id)

    def count(self, cache_id: CacheId) -> int:
        """How many uses are taken; for people who look into the engine."""
        with self._using(cache_id) as use:
            return use.count

    def recover(self, live: Collection[CacheId]) -> list[CacheId]:
        """After a restart: what `live` containers use counts as one use each, everything else is unmounted.

        Returns the layers that were unmounted.
        """
        unmounted: list[CacheId] = []
        for cache_id in sorted(self._driver.cache_ids()):
            with self._using(cache_id) as use:  # finds an existing mount and counts it
                if use.count == 0 or cache_id in live:
                    continue
                use.count = 0
                self._unmount(cache_id)
                unmounted.append(cache_id)
        return unmounted

    def drop(self, cache_id: CacheId) -> None:
        """After a restart: unmount what the daemon before was busy with when it was killed. Not mounted is fine."""
        with self._using(cache_id) as use:  # finds an existing mount and counts it
            if use.count:
                use.count = 0
                self._unmount(cache_id)

    @contextmanager
    def _using(self, cache_id: CacheId) -> Iterator[_Use]:
        with self._lock:
            use = self._uses.setdefault(cache_id, _Use())
            use.waiting += 1
        try:
            with use.lock:
                if not use.looked:
                    use.count = self._existing(cache_id)
                    use.looked = True
                yield use
        finally:
            with self._lock:
                use.waiting -= 1
                if not use.waiting and not use.count:
                    self._uses.pop(cache_id, None)

    def _existing(self, cache_id: CacheId) -> int:
        try:
            return 1 if is_mountpoint(self._driver.mount_point(cache_id)) else 0
        except NoSuchLayer:
            return 0

    def _mount(self, cache_id: CacheId) -> None:
        with ExitStack() as undo:
            undo.callback(self._driver.detach, cache_id)
            for wanted in self._driver.attach(cache_id):
                mount(wanted)
                undo.callback(unmount, wanted.target, detach=True)
            undo.pop_all()

    def _unmount(self, cache_id: CacheId) -> None:
        _unmount_all(self._driver.attach(cache_id))
        self._driver.detach(cache_id)


def _unmount_all(mounts: Sequence[Mount]) -> None:
    """Unmount in reverse; detached, so that a process which still looks inside does not keep a container from going."""
    for wanted in reversed(mounts):
        try:
            unmount(wanted.target, detach=True)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:  # not mounted: somebody was faster
                raise
