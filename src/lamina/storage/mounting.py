"""Counted mounts over a driver: the first user mounts, the last one unmounts (blocking).

The counts live in memory. A daemon that starts finds the mounts of the one before it: a place that is already mounted
when it is first used counts as one, so that the container behind it keeps its root until it is released.

A mount that a process serves dies with it. Where nobody uses it any more it is made anew; a container that does use it
has lost its root for good, and is told so.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import Conflict, NoSuchLayer, Unavailable
from lamina.ids import CacheId
from lamina.kernel.mounts import is_mountpoint, is_served
from lamina.storage.driver import StorageDriver
from lamina.storage.mount_factory import MountFactories
from lamina.storage.mount_helper import take_down


@dataclass(slots=True)
class _Use:
    """The users of one layer's mount; `waiting` keeps the entry alive while threads queue for its lock.

    `found` is the one use that a mount of an earlier daemon counts as, until it is known that a container has it.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    waiting: int = 0
    looked: bool = False
    found: int = 0


class Mounts:
    """Mounts layers of one driver for as long as somebody uses them. Thread-safe; layers do not wait for each other."""

    def __init__(self, driver: StorageDriver) -> None:
        self._driver = driver
        self._factories = MountFactories()
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
            OSError, ProcessFailed: it cannot be mounted; nothing is left mounted, no use is taken.
            Unavailable: the process that serves it has died under its users.
        """
        with self._using(cache_id) as use:
            tree = self._driver.tree(cache_id)
            if use.count and not is_served(self._driver.mount_point(cache_id)):
                self._clear_dead(cache_id, use)
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
            use.found = min(use.found, use.count)
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
                if use.count == 0:
                    continue
                if cache_id in live:
                    use.found = 0  # it is that container's
                    continue
                use.count = use.found = 0
                self._unmount(cache_id)
                unmounted.append(cache_id)
        return unmounted

    def drop(self, cache_id: CacheId) -> None:
        """After a restart: unmount what the daemon before was busy with when it was killed. Not mounted is fine."""
        with self._using(cache_id) as use:  # finds an existing mount and counts it
            if use.count:
                use.count = use.found = 0
                self._unmount(cache_id)

    @contextmanager
    def _using(self, cache_id: CacheId) -> Iterator[_Use]:
        with self._lock:
            use = self._uses.setdefault(cache_id, _Use())
            use.waiting += 1
        try:
            with use.lock:
                if not use.looked:
                    use.count = use.found = self._existing(cache_id)
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

    def _clear_dead(self, cache_id: CacheId, use: _Use) -> None:
        """Take a mount away whose server has died, unless somebody uses it."""
        if use.count > use.found:
            raise Unavailable(
                f"the file system of layer {cache_id} is gone: the process that served it has ended",
                hint="stop the container that uses it; its next start mounts it again, with all that was written",
            )
        use.count = use.found = 0
        self._unmount(cache_id)

    def _mount(self, cache_id: CacheId) -> None:
        with ExitStack() as undo:
            undo.callback(self._driver.detach, cache_id)
            for wanted in self._driver.attach(cache_id):
                self._factories.carry_out(wanted)
                undo.callback(take_down, (wanted,))
            undo.pop_all()

    def _unmount(self, cache_id: CacheId) -> None:
        take_down(self._driver.attach(cache_id))
        self._driver.detach(cache_id)
