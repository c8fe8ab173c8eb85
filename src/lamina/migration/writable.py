"""Writable layers from one store into another: what differs from the image is found and made again (blocking).

A container's init layer and its writable layer each are a difference of two trees. Found from the mounted trees of the
old driver and made through a mount of the new one, it takes the form of each driver by itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lamina.errors import InvalidArgument, StorageFull, Unsupported
from lamina.ids import CacheId
from lamina.kernel.durable import sync_filesystem
from lamina.layers.record import RwLayer
from lamina.migration.carry import Lost, carry
from lamina.migration.difference import Difference, difference
from lamina.migration.progress import Progress
from lamina.migration.stores import Store
from lamina.storage.driver import LimitsSize

SHORT = 12


@dataclass(frozen=True, slots=True)
class _Lower:
    """An init layer's tree and what it adds to the image; None for a layer without one."""

    tree: Path | None
    found: Difference | None


@dataclass(slots=True)
class WritableCopies:
    """What is to be copied and what came of it. `limits` are size limits by name; `filled` is told each finished one.

    `lost` is what the new driver cannot hold, by name of the layer; `warnings` what it does not do as the old one did.
    """

    old: Store
    new: Store
    limits: dict[str, int]
    filled: Callable[[str], None]
    progress: Progress
    lost: dict[str, list[Lost]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def copy(self, names: list[str]) -> None:
        """Copy these layers; those that the new store has already are made anew.

        Raises:
            StorageFull: no room.
            OSError: with errno and the name it was about.
        """
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="writable") as threads:
            futures = [threads.submit(self._one, name) for name in names]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, name: str) -> None:
        layer = self.old.layers.rw(name)
        with contextlib.ExitStack() as stack:
            below, init, tree = self._old_trees(layer, stack)
            lower = _Lower(init, difference(init, below) if init is not None else None)
            found = difference(tree, init if init is not None else below)
            self.progress.begin(name[:SHORT], found.size_bytes)
            limit = self.limits.get(name)
            try:
                self._make(layer, lower, tree, found, limit=limit)
            except StorageFull:
                if limit is None:
                    raise
                # It holds more than it may: it was filled where nothing bounded it. It keeps that, and gets no more.
                self._make(layer, lower, tree, found, limit=None)
                self._limit_late(layer, limit)
        self.filled(name)
        self.progress.end(name[:SHORT], "copied")

    def _make(self, layer: RwLayer, lower: _Lower, tree: Path, found: Difference, *, limit: int | None) -> None:
        """Make one layer anew and fill it from the old driver's `tree`."""
        name = layer.name
        self.new.layers.remove_unfinished_rw(name)
        self.lost.pop(name, None)

        def fill_init(target: Path) -> None:
            assert lower.tree is not None
            assert lower.found is not None
            self._note_lost(name, carry(lower.found, lower.tree, target))

        self._create(layer, fill_init if lower.tree is not None else None, limit)
        target = self.new.layers.mount_rw(name)
        try:
            lost = carry(found, tree, target, lambda done: self.progress.advance(name[:SHORT], done))
            sync_filesystem(target)  # before the switch, nothing here may be only in memory
        finally:
            self.new.layers.unmount_rw(name)
        self._note_lost(name, lost)

    def _old_trees(self, layer: RwLayer, stack: contextlib.ExitStack) -> tuple[Path | None, Path | None, Path]:
        """The image's tree, the init layer's and the container's, mounted until `stack` ends."""
        below = self.old.layers.get(layer.parent).cache_id if layer.parent is not None else None

        def mounted(cache_id: CacheId | None) -> Path | None:
            return None if cache_id is None else stack.enter_context(self.old.mounts.mounted(cache_id))

        tree = stack.enter_context(self.old.mounts.mounted(layer.mount_id))
        return mounted(below), mounted(layer.init_id), tree

    def _create(self, layer: RwLayer, prepare: Callable[[Path], None] | None, limit: int | None) -> None:
        if limit is not None:
            try:
                self.new.layers.create_rw(layer.name, layer.parent, prepare=prepare, limit_bytes=limit)
                return
            except (Unsupported, InvalidArgument) as error:
                self.warnings.append(
                    f"container {layer.name[:SHORT]} loses its limit of {limit} bytes: {error.message}"
                )
        self.new.layers.create_rw(layer.name, layer.parent, prepare=prepare)

    def _limit_late(self, layer: RwLayer, limit: int) -> None:
        self.warnings.append(f"container {layer.name[:SHORT]} holds more than its limit of {limit} bytes")
        if isinstance(self.new.driver, LimitsSize):
            with contextlib.suppress(Unsupported):  # on this file system; the warning above holds all the more
                self.new.driver.limit_size(self.new.layers.rw(layer.name).mount_id, limit)

    def _note_lost(self, name: str, lost: list[Lost]) -> None:
        if lost:
            self.lost.setdefault(name, []).extend(lost)


def copyable(old: Store) -> tuple[list[str], list[str]]:
    """The writable layers whose image is whole, and a warning for each of the others."""
    names: list[str] = []
    warnings: list[str] = []
    for name in sorted(old.layers.rw_names()):
        parent = old.layers.rw(name).parent
        if parent is None or old.layers.exists(parent):
            names.append(name)
        else:
            warnings.append(f"the writable layer {name[:SHORT]} stays behind: the layers of its image are not there")
    return names, warnings
