"""The zfs driver: a dataset per layer, cloned from a snapshot of its parent, as dockerd has it (blocking).

`<parent>/<id>` with `mountpoint=legacy` is the layer, mounted at `<root>/zfs/graph/<id>` while it is used. The parent
of a layer is what its dataset was cloned from. Which layers are sealed lies in `zfs/sealed/`, where dockerd ignores it:
a property on the dataset would cost a transaction of the pool each. dockerd makes a snapshot for every child; we make
one for all children of a sealed layer, which cannot change, and give it up (a deferred destroy) at the end, so that
from then on it goes with the last of them, as dockerd's do. Source: moby daemon/graphdriver/zfs/zfs.go.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from lamina.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    LayerInUse,
    NoSuchLayer,
    ProgramFailed,
    Unsupported,
)
from lamina.ids import CacheId
from lamina.kernel import libc, zfs
from lamina.kernel.durable import make_dirs, sync_filesystem, write_file_lazy
from lamina.kernel.mounts import Mount, is_mountpoint
from lamina.programs import run as programs
from lamina.rootfs.diff import Touched
from lamina.storage.driver import Usage
from lamina.storage.room import needing_room
from lamina.storage.zfs import removal
from lamina.storage.zfs.changed import touched_since_cloned
from lamina.storage.zfs.datasets import (
    BETWEEN_MARK,
    ID,
    PROPERTIES,
    Child,
    cache_id_of,
    children,
    is_going_name,
    note_owner,
    parent_facts,
    pool_of,
)
from lamina.storage.zfs.probe import chosen, probe
from lamina.storage.zfs.status import rows
from lamina.storage.zfs.usage import usage_alone, usage_between

_LOG = logging.getLogger(__name__)
_OPTION = "zfs.fsname"


class Zfs:
    """Layers below one dataset. Thread-safe; layers do not wait for each other's transactions."""

    name: ClassVar[str] = "zfs"

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root, making it when it is new.

        `warnings` says afterwards what was found amiss.

        Raises:
            Unsupported: ZFS is not there, or the data root is not on it.
            InvalidArgument: an option this driver does not know, or that names no dataset.
            Conflict: another data root keeps its layers in the same dataset.
        """
        named = _parent_of(options or {})
        root = Path(os.path.realpath(root))
        make_dirs(root, 0o710)
        if named:
            chosen(named)
        self._parent = named or probe(root)
        home = root / self.name
        make_dirs(home, 0o710)
        make_dirs(home / "graph", 0o755)
        make_dirs(home / "sealed", 0o700)
        self._home, self._graph, self._sealed_dir = home, home / "graph", home / "sealed"
        self._pool = pool_of(self._parent)
        self._lock = threading.Lock()
        self._layers: dict[CacheId, CacheId | None] = {}  # with their parents
        self._sealed: set[CacheId] = set()
        self._going: set[CacheId] = set()  # being removed
        self._snapshots: dict[CacheId, str] = {}  # the one that children of this layer are cloned from
        self._snapping: dict[CacheId, threading.Lock] = {}
        self._aside: list[str] = []
        self.warnings: list[str] = []
        self._claim(root)
        self._read()
        for warning in self.warnings:
            _LOG.warning("%s", warning)

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not ID.fullmatch(cache_id) or is_going_name(cache_id):
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        with needing_room(f"layer {cache_id}"), ExitStack() as undo:
            self._note(cache_id, parent)
            undo.callback(self._forget, cache_id)
            dataset = self._dataset(cache_id)
            try:
                if parent is None:
                    zfs.create(dataset, PROPERTIES)
                else:
                    self._clone(dataset, parent)
            except FileExistsError as error:
                raise AlreadyExists(
                    f"the dataset {dataset} exists and is no layer of this data root",
                    hint=f"look what it is: zfs get all {dataset}; then rename or destroy it",
                ) from error
            undo.pop_all()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        dataset = self._present(cache_id)
        place = self._graph / cache_id
        # The data root usually lies in the pool that may be full.
        with needing_room(f"the mount point of layer {cache_id}"), suppress(FileExistsError):
            os.mkdir(place, 0o755)
        flags = libc.MS_RDONLY if cache_id in self._sealed else 0
        return (Mount("zfs", dataset, place, flags),)

    def tree(self, cache_id: CacheId) -> Path:
        self._require(cache_id)
        return self._graph / cache_id

    def mount_point(self, cache_id: CacheId) -> Path:
        return self.tree(cache_id)

    def detach(self, cache_id: CacheId) -> None:
        # rmdir also takes the mount out of every other mount namespace that still shows it.
        with suppress(FileNotFoundError):
            os.rmdir(self._graph / cache_id)

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        self._require(cache_id)
        with self._lock:
            if cache_id not in self._sealed:
                write_file_lazy(self._sealed_dir / cache_id, b"")
                self._sealed.add(cache_id)
        if durable:
            with needing_room(f"layer {cache_id}"):
                zfs.sync(self._pool)

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        dataset = self._present(cache_id)
        try:
            programs.run(("zfs", "set", f"quota={limit_bytes}", dataset))
        except ProgramFailed as error:
            raise InvalidArgument(f"layer {cache_id} cannot be limited to {limit_bytes} bytes: {error}") from error

    def remove(self, cache_id: CacheId) -> None:
        with self._lock:
            if cache_id not in self._layers:
                return
            above = sum(parent == cache_id for parent in self._layers.values())
            if above:
                raise LayerInUse(f"layer {cache_id} is the parent of {above} layer(s)")
            if is_mountpoint(self._graph / cache_id):
                raise LayerInUse(f"layer {cache_id} is mounted")
            if cache_id in self._going:
                raise LayerInUse(f"layer {cache_id} is being removed")
            self._going.add(cache_id)
            has_snapshots = self._snapshots.pop(cache_id, None) is not None
        dataset = self._dataset(cache_id)
        try:
            if not removal.destroy(dataset, has_snapshots=has_snapshots):
                aside = removal.put_aside(dataset)
                with self._lock:
                    self._aside.append(aside)
            self._forget(cache_id)
        finally:
            with self._lock:
                self._going.discard(cache_id)
        self._finish_removals()

    def cache_ids(self) -> frozenset[CacheId]:
        with self._lock:
            return frozenset(self._layers)

    def usage(self, cache_id: CacheId) -> Usage:
        dataset = self._present(cache_id)
        parent = self._layers.get(cache_id)
        if parent is None:
            return usage_alone(dataset)
        return usage_between(dataset, self._present(parent), self.touched(cache_id, parent))

    def touched(self, cache_id: CacheId, parent: CacheId) -> Touched | None:
        dataset = self._present(cache_id)
        if self._layers.get(cache_id) != parent:
            return None
        if is_mountpoint(self._graph / cache_id):
            sync_filesystem(self._graph / cache_id)  # what was written through a mapping
        return touched_since_cloned(dataset)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        self._require(cache_id)
        return {"Dataset": self._dataset(cache_id), "Mountpoint": os.fspath(self._graph / cache_id)}

    def status(self) -> Sequence[tuple[str, str]]:
        return rows(self._parent)

    def close(self) -> None:
        """Give the snapshots up; a driver that is killed finds them when it is opened again."""
        with self._lock:
            names = list(self._snapshots.values())
            self._snapshots.clear()
        with suppress(FileNotFoundError):  # the pool is gone
            zfs.destroy_snapshots(names, deferred=True)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _dataset(self, cache_id: CacheId) -> str:
        return f"{self._parent}/{cache_id}"

    def _require(self, cache_id: CacheId) -> None:
        if cache_id not in self._layers:
            raise NoSuchLayer(f"no such layer in zfs: {cache_id}")

    def _present(self, cache_id: CacheId) -> str:
        """The layer's dataset, of which the kernel knows too."""
        self._require(cache_id)
        dataset = self._dataset(cache_id)
        if not zfs.exists(dataset):
            self._forget(cache_id)
            raise NoSuchLayer(
                f"layer {cache_id} is lost: its dataset {dataset} was removed behind our back",
                hint=f"zpool history {self._pool} says when; remove what used it, or pull the image again",
            )
        return dataset

    def _note(self, cache_id: CacheId, parent: CacheId | None) -> None:
        """Make a new layer known, so that its parent can no longer be removed."""
        with self._lock:
            if cache_id in self._layers:
                raise AlreadyExists(f"layer {cache_id} exists")
            if parent is not None:
                self._require(parent)
                if parent in self._going:
                    raise NoSuchLayer(f"layer {parent} is being removed")
                if parent not in self._sealed:
                    raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")
            self._layers[cache_id] = parent

    def _forget(self, cache_id: CacheId) -> None:
        with self._lock:
            self._layers.pop(cache_id, None)
            self._sealed.discard(cache_id)
            self._snapshots.pop(cache_id, None)
            self._snapping.pop(cache_id, None)
            with suppress(FileNotFoundError):
                os.unlink(self._sealed_dir / cache_id)

    def _clone(self, dataset: str, parent: CacheId) -> None:
        while True:
            try:
                zfs.clone(dataset, self._snapshot(parent), PROPERTIES)
            except FileNotFoundError:
                self._present(parent)
                with self._lock:  # only the snapshot was removed behind our back
                    self._snapshots.pop(parent, None)
                continue
            return

    def _snapshot(self, parent: CacheId) -> str:
        """The one for all children of `parent`; made for the first."""
        with self._lock:
            turn = self._snapping.setdefault(parent, threading.Lock())
        with turn:
            made = self._snapshots.get(parent)
            while made is None:
                # dockerd takes the nanoseconds of the clock: any number of up to nine digits
                name = f"{self._dataset(parent)}@{int.from_bytes(os.urandom(4), 'big') % 10**9}"
                with suppress(FileExistsError):
                    zfs.snapshot(name, {BETWEEN_MARK: "1"})
                    made = name
            with self._lock:
                self._snapshots[parent] = made
            return made

    def _finish_removals(self) -> None:
        with self._lock:
            waiting, self._aside = self._aside, []
        left = removal.finish(waiting)
        with self._lock:
            self._aside += left

    def _claim(self, root: Path) -> None:
        """Two data roots in one dataset would sweep each other's layers."""
        record = self._home / "dataset"
        owner = parent_facts(self._parent).owner
        if owner and owner != os.fspath(root) and _reads(Path(owner, self.name, "dataset")) == self._parent:
            raise Conflict(
                f"the dataset {self._parent} holds the layers of the data root {owner}",
                hint="give each data root a dataset of its own: --storage-opt zfs.fsname=POOL/NAME",
            )
        if owner != os.fspath(root):
            note_owner(self._parent, os.fspath(root))
        if _reads(record) != self._parent:
            write_file_lazy(record, self._parent.encode())

    def _read(self) -> None:
        """What is there; dockerd may have made and removed layers meanwhile, and a crash may have left some half."""
        found = children(self._parent)
        layers = {cache_id_of(child.name): child for child in found if child.is_layer}
        for name in os.listdir(self._sealed_dir):
            if name in layers:
                self._sealed.add(CacheId(name))
            else:
                os.unlink(self._sealed_dir / name)
        for cache_id, child in layers.items():
            origin = child.origin.partition("@")[0]
            is_ours = origin.rpartition("/")[0] == self._parent and cache_id_of(origin) in layers
            self._layers[cache_id] = cache_id_of(origin) if is_ours else None
            if not child.is_legacy:
                self._make_legacy(child)
        self._take_over_snapshots(layers)
        self._aside = removal.finish(child.name for child in found if child.is_going)
        self.warnings += [f"the dataset {name} is still held by something, and not removed yet" for name in self._aside]

    def _take_over_snapshots(self, layers: Mapping[CacheId, Child]) -> None:
        """Those of a driver that was killed: one of each layer serves on, others are given up."""
        surplus: list[str] = []
        for cache_id, child in layers.items():
            names = list(child.snapshots)
            if names and cache_id in self._sealed:
                self._snapshots[cache_id] = names.pop()
            surplus += names
        zfs.destroy_snapshots(surplus, deferred=True)

    def _make_legacy(self, child: Child) -> None:
        """Otherwise ZFS itself would mount the layer, writable, when the machine starts."""
        try:
            programs.run(("zfs", "set", "mountpoint=legacy", child.name))
        except (ProgramFailed, Unsupported) as error:
            self.warnings.append(f"the layer {child.name} has the mount point {child.mountpoint}, not legacy: {error}")
        else:
            self.warnings.append(f"the layer {child.name} had the mount point {child.mountpoint}: set back to legacy")


def _parent_of(options: Mapping[str, str]) -> str:
    for key in options:
        if key != _OPTION:
            raise InvalidArgument(f"unknown option {key} of storage driver zfs", hint=f"known is: {_OPTION}")
    return options.get(_OPTION, "").strip("/")


def _reads(record: Path) -> str:
    try:
        return record.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""
