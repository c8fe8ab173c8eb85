"""The btrfs driver: every layer is a subvolume, every child a snapshot of its parent (blocking).

`<root>/btrfs/subvolumes/<id>` is the layer and `<root>/btrfs/quotas/<id>` its limit, as dockerd has them. Who the
parent is, the file system knows: a snapshot keeps the UUID of what it is a snapshot of. A layer that was sealed durably
is a read-only subvolume; dockerd never writes into a layer that has children, so it does not mind. One that was not (it
can be made again, or dockerd made it) has an empty file `sealed/<id>`. `scratch/` holds snapshots for a while, and is
emptied at start. dockerd ignores both.

dockerd binds its home on itself. Nothing here needs that: containers get the directory of their subvolume.
Source: moby daemon/graphdriver/btrfs/btrfs.go.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lamina.errors import AlreadyExists, InvalidArgument, LayerInUse, NoSuchLayer
from lamina.ids import CacheId
from lamina.kernel import btrfs
from lamina.kernel.btrfs_removal import remove_subvolume
from lamina.kernel.durable import make_dirs
from lamina.kernel.libc import syncfs
from lamina.kernel.mounts import Mount, is_mountpoint
from lamina.rootfs.diff import Touched, change_usage
from lamina.rootfs.remove import remove_tree
from lamina.storage.btrfs.changed import changed_since, holds_subvolumes, very_much_changed
from lamina.storage.btrfs.limits import Limits, opened
from lamina.storage.btrfs.options import read_options
from lamina.storage.btrfs.probe import probe
from lamina.storage.btrfs.spares import Spares
from lamina.storage.children import Children
from lamina.storage.driver import Usage
from lamina.storage.room import needing_room
from lamina.storage.usage import usage_of

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Layer:
    uuid: bytes
    parent_uuid: bytes
    made_at: int
    read_only: bool
    sealed: bool


class Btrfs:
    """Layers below `<root>/btrfs`. Thread-safe; different layers do not wait for each other's disk work."""

    name: ClassVar[str] = "btrfs"

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root, making it when it is new.

        Raises:
            Unsupported: the data root is not on btrfs, or its subvolumes cannot be used.
            InvalidArgument: an option this driver does not know.
        """
        self._min_space = read_options(options or {})
        home = Path(os.path.realpath(root)) / self.name
        make_dirs(home.parent, 0o710)
        probe(home if home.is_dir() else home.parent)
        for directory in (home, home / "subvolumes"):
            make_dirs(directory, 0o710)
        for directory in (home / "scratch", home / "sealed"):
            make_dirs(directory, 0o700)
        self._subvolumes, self._scratch, self._marks = home / "subvolumes", home / "scratch", home / "sealed"
        self._lock = threading.Lock()
        self._layers: dict[CacheId, _Layer] = {}
        self._by_uuid: dict[bytes, CacheId] = {}
        self._children: Children[bytes] = Children()
        self._limits = Limits(home)
        self._spares = Spares(self._subvolumes, self._scratch, self._erase)
        self._read_layers()
        for name in os.listdir(self._scratch):
            self._erase(self._scratch, name)
        self._limits.sweep(self._layers)

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not _ID.fullmatch(cache_id):
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        with self._lock:
            if os.path.lexists(self._subvolumes / cache_id):
                raise AlreadyExists(f"layer {cache_id} exists")
            above = self._parent(parent)
            if above is not None:
                self._children.add(above.uuid, cache_id)
        with ExitStack() as undo:
            if above is not None:
                undo.callback(self._drop_child, above.uuid, cache_id)
            try:
                with needing_room(f"layer {cache_id}"):
                    self._make(cache_id, parent)
            except FileExistsError as error:
                raise AlreadyExists(f"layer {cache_id} exists") from error
            undo.callback(self._erase, self._subvolumes, cache_id)
            self._note(cache_id)
            undo.pop_all()
        if parent is not None:
            self._spares.used(parent)

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        self._limits.apply(cache_id, self._require(cache_id))
        return ()

    def tree(self, cache_id: CacheId) -> Path:
        return self._require(cache_id)

    def mount_point(self, cache_id: CacheId) -> Path:
        return self._require(cache_id)

    def detach(self, cache_id: CacheId) -> None:
        """Nothing was made ready."""

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        layer = self._layer(cache_id)
        with needing_room(f"layer {cache_id}"):
            if durable:
                with self._opened(cache_id) as fd:
                    if not layer.read_only:
                        btrfs.set_read_only(fd, read_only=True)
                    self._write_out(cache_id, fd)
                layer.read_only = True
            elif not layer.sealed:
                # What can be made again shall not wait for a commit, as the flag would: a container's creation does.
                (self._marks / cache_id).touch(0o600)
        layer.sealed = True

    def remove(self, cache_id: CacheId) -> None:
        if not _ID.fullmatch(cache_id):
            return
        with self._lock:
            layer = self._layers.get(cache_id)
            if layer is not None:
                children = self._children.count(layer.uuid)
                if children:
                    raise LayerInUse(f"layer {cache_id} is the parent of {children} layer(s)")
            if is_mountpoint(self._subvolumes / cache_id):
                raise LayerInUse(f"layer {cache_id} is mounted")
            self._layers.pop(cache_id, None)
        self._spares.drop(cache_id)
        self._erase(self._subvolumes, cache_id)
        self._limits.drop(cache_id)
        (self._marks / cache_id).unlink(missing_ok=True)
        if layer is not None:
            self._forget(cache_id, layer)

    def cache_ids(self) -> frozenset[CacheId]:
        with self._lock:
            return frozenset(self._layers)

    def usage(self, cache_id: CacheId) -> Usage:
        layer, directory = self._layer(cache_id), self._require(cache_id)
        parent = self._by_uuid.get(layer.parent_uuid)
        if parent is None:
            return usage_of(directory, counts_devices=True)
        touched = self.touched(cache_id, parent)
        size_bytes, inodes = change_usage(directory, self._subvolumes / parent, touched)
        return Usage(size_bytes, inodes)

    def touched(self, cache_id: CacheId, parent: CacheId) -> Touched | None:
        layer, below = self._layer(cache_id), self._layer(parent)
        if layer.parent_uuid != below.uuid:
            return None
        try:
            with self._opened(parent) as parent_fd, self._opened(cache_id) as fd:
                if holds_subvolumes(fd) or holds_subvolumes(parent_fd) or very_much_changed(fd, layer.made_at):
                    return None
                with self._snapshot(cache_id, fd) as snapshot_fd:
                    return changed_since(layer.made_at, snapshot_fd, parent_fd)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS}:
                raise
            return None  # no room for a snapshot: every file has to be looked at

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        if limit_bytes <= 0:
            raise InvalidArgument(f"btrfs: invalid storage size: {limit_bytes}")
        if limit_bytes < self._min_space:
            raise InvalidArgument(
                f"btrfs: storage size cannot be less than {self._min_space} bytes",
                hint="ask for a larger size, or start the daemon with a smaller btrfs.min_space",
            )
        directory = self._require(cache_id)
        with needing_room(f"layer {cache_id}"):
            self._limits.set(cache_id, directory, limit_bytes)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        self._require(cache_id)
        return {}

    def status(self) -> Sequence[tuple[str, str]]:
        rows = [("Backing Filesystem", "btrfs"), ("Quotas", "enabled" if self._limits.enabled else "off")]
        if self._min_space:
            rows.append(("Minimum Space", f"{self._min_space} bytes"))
        return rows

    def close(self) -> None:
        self._spares.close()

    def _require(self, cache_id: CacheId) -> Path:
        self._layer(cache_id)
        return self._subvolumes / cache_id

    def _layer(self, cache_id: CacheId) -> _Layer:
        found = self._layers.get(cache_id)
        if found is None:
            raise NoSuchLayer(f"no such layer in btrfs: {cache_id}")
        return found

    @contextmanager
    def _opened(self, cache_id: CacheId) -> Iterator[int]:
        """The root of a layer's subvolume; somebody else may have removed it."""
        try:
            fd = os.open(self._require(cache_id), _DIRECTORY)
        except FileNotFoundError as error:
            raise NoSuchLayer(f"the subvolume of layer {cache_id} in btrfs is gone") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _parent(self, parent: CacheId | None) -> _Layer | None:
        if parent is None:
            return None
        layer = self._layer(parent)
        if not layer.sealed:
            raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")
        return layer

    def _make(self, cache_id: CacheId, parent: CacheId | None) -> None:
        with opened(self._subvolumes) as fd:
            if parent is None:
                btrfs.create_subvolume(fd, cache_id)
                (self._subvolumes / cache_id).chmod(0o755)
                return
            if self._spares.take(parent, cache_id):
                return
            with self._opened(parent) as parent_fd:
                btrfs.create_snapshot(parent_fd, fd, cache_id)

    def _note(self, cache_id: CacheId) -> None:
        """Make a subvolume known as a layer."""
        with opened(self._subvolumes / cache_id) as fd:
            found = btrfs.subvolume(fd)
        is_marked = (self._marks / cache_id).exists()
        with self._lock:
            self._layers[cache_id] = _Layer(
                found.uuid, found.parent_uuid, found.made_at, found.read_only, sealed=found.read_only or is_marked
            )
            self._by_uuid[found.uuid] = cache_id
            if any(found.parent_uuid):
                self._children.add(found.parent_uuid, cache_id)

    def _read_layers(self) -> None:
        """What is no subvolume is no layer: it may be what a snapshot of the whole data root shows of one."""
        with os.scandir(self._subvolumes) as listing:
            for entry in listing:
                if _ID.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_ino == btrfs.ROOT_INODE:
                    self._note(CacheId(entry.name))
        for name in os.listdir(self._marks):
            if name not in self._layers:
                self._erase(self._marks, name)

    def _forget(self, cache_id: CacheId, layer: _Layer) -> None:
        with self._lock:
            self._by_uuid.pop(layer.uuid, None)
        self._drop_child(layer.parent_uuid, cache_id)

    def _drop_child(self, parent_uuid: bytes, cache_id: CacheId) -> None:
        with self._lock:
            self._children.discard(parent_uuid, cache_id)

    def _erase(self, directory: Path, name: str) -> None:
        """Remove a subvolume with all that was made in it, or what else has its name."""
        with opened(directory) as fd:
            try:
                self._limits.leave(remove_subvolume(fd, name))
            except OSError as error:
                if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                    raise
                remove_tree(directory / name)

    @contextmanager
    def _snapshot(self, cache_id: CacheId, fd: int) -> Iterator[int]:
        """A read-only snapshot for a moment. Making it writes the data of this layer out, and of no other."""
        name = f"{cache_id}-{os.urandom(6).hex()}"
        with opened(self._scratch) as scratch_fd:
            btrfs.create_snapshot(fd, scratch_fd, name, read_only=True)
        try:
            with opened(self._scratch / name) as snapshot_fd:
                yield snapshot_fd
        finally:
            self._erase(self._scratch, name)

    def _write_out(self, cache_id: CacheId, fd: int) -> None:
        errors = btrfs.write_errors(fd)
        with self._snapshot(cache_id, fd):
            pass
        if btrfs.write_errors(fd) != errors:
            syncfs(fd)  # a snapshot does not tell whether data was lost or another device has it; this does
