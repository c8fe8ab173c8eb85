"""Writable layers: thin, on an init layer on an image's chain (blocking, thread-safe).

The record is written before the driver's layers are made: if a crash comes between, the next start sees a record
whose layer is missing, and nothing stays behind that nobody names.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

from lamina.errors import AlreadyExists, CorruptRecord, InvalidArgument, NotFound, Unsupported
from lamina.ids import CacheId, new_cache_id
from lamina.layers import record, rwtar
from lamina.layers.pattern import Pattern, pattern_of
from lamina.layers.record import RwLayer
from lamina.oci.digest import ChainId
from lamina.rootfs.diff import Change, Touched, changes
from lamina.rootfs.own_changes import own_changes
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import (
    KeepsUpper,
    LimitsByDefault,
    LimitsSize,
    StorageDriver,
    TellsChanges,
    Usage,
    WhiteoutDialect,
)
from lamina.storage.mounting import Mounts

_MAX_PATTERNS = 1024


def keeps_upper(driver: StorageDriver) -> KeepsUpper | None:
    """The driver, if it holds a layer's own changes in a directory of their own."""
    return driver if isinstance(driver, KeepsUpper) and driver.dialect is not WhiteoutDialect.NONE else None


class RwLayers:
    """The writable layers of one driver. `directory` is `layerdb/mounts`."""

    def __init__(self, directory: Path, driver: StorageDriver, mounts: Mounts) -> None:
        self._directory = directory
        self._driver = driver
        self._mounts = mounts
        self._upper = keeps_upper(driver)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._readers: dict[str, int] = {}
        self._going: set[str] = set()
        self._layers: dict[str, RwLayer] = {}
        self._patterns: dict[Hashable, Pattern] = {}

    def load(self, warnings: list[str]) -> None:
        """Read the records; one whose layer was never finished is removed with what there is of it."""
        self._layers.clear()
        if not self._directory.is_dir():
            return
        present = self._driver.cache_ids()
        for place in sorted(self._directory.iterdir()):
            try:
                layer = record.read_rw(place)
            except CorruptRecord as error:
                warnings.append(str(error))
                if not any(place.iterdir()):
                    place.rmdir()
                continue
            if layer.mount_id in present:
                self._layers[layer.name] = layer
                continue
            warnings.append(f"the writable layer {layer.name} was never finished: removed")
            if layer.init_id is not None:
                self._mounts.drop(layer.init_id)  # it was being filled
            self._take_down(layer)

    def create(
        self,
        name: str,
        parent: tuple[ChainId, CacheId] | None,
        prepare: Callable[[Path], None] | None,
        *,
        limit_bytes: int | None,
        alike: Hashable = None,
    ) -> RwLayer:
        """Make a writable layer; see `LayerStore.create_rw`."""
        if not name or "/" in name or name in {".", ".."}:
            raise InvalidArgument(f"{name!r} cannot name a writable layer")
        mount_id = new_cache_id()
        init_id = CacheId(f"{mount_id}-init") if prepare is not None else None
        chain, below = parent or (None, None)
        layer = RwLayer(name, mount_id, init_id, chain)
        with self._lock:
            if name in self._layers:
                raise AlreadyExists(f"there is a writable layer {name} already")
            self._layers[name] = layer
        try:
            record.write_rw(self._directory / name, layer)
            if init_id is not None and prepare is not None:
                self._driver.create(init_id, below)
                self._fill(init_id, prepare, None if alike is None else (chain, alike))
                # Not synced: it can be made again, and a container's creation must not wait for the disk.
                self._driver.seal(init_id, durable=False)
            self._driver.create(mount_id, init_id or below)
            if limit_bytes is None and isinstance(self._driver, LimitsByDefault):
                limit_bytes = self._driver.default_limit_bytes
            if limit_bytes is not None:
                self._limit(mount_id, limit_bytes)
        except BaseException:
            self._take_down(layer)
            with self._lock:
                del self._layers[name]
            raise
        return layer

    def _fill(self, init_id: CacheId, prepare: Callable[[Path], None], key: Hashable) -> None:
        """Through a mount, or, when the same was made before, by copying what that left."""
        pattern = self._patterns.get(key) if key is not None else None
        if pattern is not None and self._upper is not None:
            pattern.lay_down(self._upper.upper(init_id))
            return
        with self._mounts.mounted(init_id) as tree:
            prepare(tree)
        if key is not None and self._upper is not None:
            made = pattern_of(self._upper.upper(init_id))
            if made is not None:
                with self._lock:
                    if len(self._patterns) >= _MAX_PATTERNS:
                        self._patterns.clear()
                    self._patterns[key] = made

    def get(self, name: str) -> RwLayer:
        """Raises NotFound."""
        with self._lock:
            found = self._layers.get(name)
        if found is None:
            raise NotFound(f"no writable layer {name}")
        return found

    def names(self) -> list[str]:
        with self._lock:
            return list(self._layers)

    def parents(self) -> list[ChainId]:
        with self._lock:
            return [layer.parent for layer in self._layers.values() if layer.parent is not None]

    def cache_ids(self) -> set[CacheId]:
        with self._lock:
            found = {layer.mount_id for layer in self._layers.values()}
            return found | {layer.init_id for layer in self._layers.values() if layer.init_id}

    def remove(self, name: str) -> RwLayer | None:
        """Remove the layer with all that was written into it; None when there is none."""
        with self._changed:
            layer = self._layers.get(name)
            if layer is None:
                return None
            self._going.add(name)
            self._changed.wait_for(lambda: name not in self._readers)
        try:
            self._take_down(layer)
            with self._lock:
                # None: another thread was faster, and gives the hold on the chain back.
                return self._layers.pop(name, None)
        finally:
            with self._lock:
                self._going.discard(name)

    @contextlib.contextmanager
    def kept(self, name: str) -> Iterator[RwLayer]:
        """Inside, the layer stays whole: who removes it waits. Raises NotFound, also when it is going already."""
        with self._changed:
            layer = self._layers.get(name)
            if layer is None or name in self._going:
                raise NotFound(f"no writable layer {name}")
            self._readers[name] = self._readers.get(name, 0) + 1
        try:
            yield layer
        finally:
            with self._changed:
                self._readers[name] -= 1
                if not self._readers[name]:
                    del self._readers[name]
                self._changed.notify_all()

    def drop_mount(self, name: str) -> None:
        """After a restart: unmount what a daemon that was killed left mounted. Again is fine."""
        with self._lock:
            layer = self._layers.get(name)
        if layer is not None:
            self._mounts.drop(layer.mount_id)

    def mount(self, name: str) -> Path:
        return self._mounts.acquire(self.get(name).mount_id)

    def unmount(self, name: str) -> None:
        self._mounts.release(self.get(name).mount_id)

    def usage(self, name: str) -> Usage:
        return self._driver.usage(self.get(name).mount_id)

    def changes(self, name: str, below: CacheId | None) -> list[Change]:
        """What differs from the init layer (or, without one, from the image's top layer `below`)."""
        layer = self.get(name)
        if self._upper is not None:
            upper, lowers = self._upper.upper(layer.mount_id), self._upper.lowers(layer.mount_id)
            return own_changes(upper, self._upper.dialect, lowers)
        old = layer.init_id or below
        with contextlib.ExitStack() as stack:
            new_tree = stack.enter_context(self._mounts.mounted(layer.mount_id))
            old_tree = stack.enter_context(self._mounts.mounted(old)) if old is not None else None
            return changes(new_tree, old_tree, self._touched(layer.mount_id, old))

    def write_diff(self, name: str, below: CacheId | None, out: rwtar.Writable) -> None:
        """The layer's changes as a layer tar: by walking its directory of own changes, else from the compared trees."""
        layer = self.get(name)
        if self._upper is not None:
            rwtar.write_tree(self._upper.upper(layer.mount_id), out, self._upper.dialect)
            return
        found = self.changes(name, below)
        with self._mounts.mounted(layer.mount_id) as tree:
            rwtar.write_changes(tree, found, time.time_ns(), out)

    def write_tree(self, name: str, out: rwtar.Writable) -> None:
        """The whole root as the container sees it."""
        with self._mounts.mounted(self.get(name).mount_id) as tree:
            rwtar.write_tree(tree, out)

    def _touched(self, mount_id: CacheId, old: CacheId | None) -> Touched | None:
        if old is None or not isinstance(self._driver, TellsChanges):
            return None
        return self._driver.touched(mount_id, old)

    def _limit(self, mount_id: CacheId, limit_bytes: int) -> None:
        if not isinstance(self._driver, LimitsSize):
            raise Unsupported(f"--storage-opt size is not supported by the storage driver {self._driver.name}")
        self._driver.limit_size(mount_id, limit_bytes)

    def _take_down(self, layer: RwLayer) -> None:
        self._driver.remove(layer.mount_id)
        if layer.init_id is not None:
            self._driver.remove(layer.init_id)
        remove_tree(self._directory / layer.name)
