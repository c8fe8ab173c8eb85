"""How much a layer may refer to: quota groups, and the files in which Docker remembers the limits (blocking).

`quotas/<id>` holds the bytes as decimal digits. A limit counts what the layer shares with its parents, as in Docker.
Quotas cost time on every snapshot and removal, so they are enabled when a limit is first asked for and not before.
Counting what is there then takes a while; the limit is exact when it is done. dockerd 20.10 disables quotas when it
stops, so a limit is set again whenever its layer is attached. Source: moby daemon/graphdriver/btrfs/btrfs.go.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.ids import CacheId
from lamina.kernel import btrfs
from lamina.kernel.durable import make_dirs, write_file

_LONGEST_COUNT_S = 10.0
_POLL_S = 0.01
_AT_ONCE = 64
"""Quota groups that are looked at when one more layer goes: the oldest, for the kernel takes layers in that order."""


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """A directory as a descriptor; a symlink in its place is refused."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class Limits:
    """The limits of one home. Thread-safe."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._directory = home / "quotas"
        self._lock = threading.Lock()
        self._enabling = threading.Lock()
        self._limits = self._read()
        self._leaving: set[int] = set()
        with opened(home) as fd:
            self.enabled = btrfs.quotas_enabled(fd)

    def set(self, cache_id: CacheId, layer: Path, limit_bytes: int) -> None:
        """Limit a layer from now on, and remember it."""
        make_dirs(self._directory, 0o700)
        write_file(self._directory / cache_id, str(limit_bytes).encode("ascii"), 0o644)
        with self._lock:
            self._limits[cache_id] = limit_bytes
        with opened(layer) as fd:
            self._apply(fd, limit_bytes)

    def apply(self, cache_id: CacheId, layer: Path) -> None:
        """See that a remembered limit is in force."""
        limit_bytes = self._limits.get(cache_id)
        if limit_bytes is None:
            return
        with opened(layer) as fd:
            if btrfs.limit_of_subvolume(fd, btrfs.subvolume_number(fd)) != limit_bytes:
                self._apply(fd, limit_bytes)

    def drop(self, cache_id: CacheId) -> None:
        """Forget the limit of a layer that is gone."""
        with self._lock:
            if self._limits.pop(cache_id, None) is None:
                return
        with suppress(FileNotFoundError):
            os.unlink(self._directory / cache_id)

    def leave(self, numbers: Collection[int]) -> None:
        """These subvolumes are destroyed: their quota groups go as soon as the kernel has given back the room."""
        if not self.enabled:
            return
        with self._lock:
            leaving = self._leaving | set(numbers)
        with opened(self._home) as fd:
            gone = {number for number in sorted(leaving)[:_AT_ONCE] if btrfs.destroy_group(fd, number)}
        with self._lock:
            self._leaving = (self._leaving | set(numbers)) - gone

    def sweep(self, present: Collection[CacheId]) -> None:
        """At start: limits of layers that are gone, and groups whose subvolume is, left by a crash or by dockerd."""
        for cache_id in self._limits.keys() - present:
            self.drop(cache_id)
        if self.enabled and self._directory.is_dir():
            with opened(self._home) as fd:
                stale = btrfs.stale_groups(fd)
            self.leave(stale)

    def _apply(self, fd: int, limit_bytes: int) -> None:
        with self._enabling:
            if not btrfs.quotas_enabled(fd):
                btrfs.enable_quotas(fd)
                self._await_count(fd)
            self.enabled = True
        btrfs.limit_subvolume(fd, limit_bytes)

    def _await_count(self, fd: int) -> None:
        """On a large file system a count takes minutes, which nobody shall wait for: the limit is exact later."""
        deadline = time.monotonic() + _LONGEST_COUNT_S
        while btrfs.is_counting(fd) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _read(self) -> dict[CacheId, int]:
        found: dict[CacheId, int] = {}
        if self._directory.is_dir():
            for place in self._directory.iterdir():
                with suppress(ValueError, OSError):  # a damaged file limits nothing
                    found[CacheId(place.name)] = int(place.read_text(encoding="ascii"))
        return found
