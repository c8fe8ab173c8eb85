"""The vfs driver: every layer is a directory with a full copy of its parent in it (blocking).

`<root>/vfs/dir/<id>` is the layer, as dockerd has it. What dockerd does not keep lies beside it: `sealed/<id>` (empty)
and `parents/<id>` (the parent's id); dockerd ignores both, and layers it made are sealed when their root is opened.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import ClassVar

from lamina.errors import AlreadyExists, CorruptRecord, InvalidArgument, LayerInUse, NoSuchLayer, Unsupported
from lamina.ids import CacheId
from lamina.kernel import libc
from lamina.kernel.durable import make_dirs, sync_filesystem, write_file_lazy
from lamina.kernel.mounts import Mount, is_mountpoint
from lamina.kernel.placement import spread_directories
from lamina.kernel.quota import project_of
from lamina.rootfs.copytree import copy_tree
from lamina.rootfs.diff import change_usage
from lamina.rootfs.remove import remove_tree
from lamina.storage.driver import Usage
from lamina.storage.quota_control import QuotaControl, control_of, size_option
from lamina.storage.room import needing_room
from lamina.storage.usage import usage_of

_LIMITING = "limiting"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class Vfs:
    """Layers below `<root>/vfs`. Thread-safe; copies run side by side."""

    name: ClassVar[str] = "vfs"

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root, making it when it is new.

        Raises:
            InvalidArgument: an option this driver does not know.
        """
        self.default_limit_bytes = _default_limit(options or {})
        home = Path(os.path.realpath(root)) / self.name
        make_dirs(home.parent, 0o710)
        for directory in (home, home / "dir"):
            make_dirs(directory, 0o710)
        spread_directories(home / "dir")
        for directory in (home / "sealed", home / "parents"):
            make_dirs(directory, 0o700)
        remove_tree(home / _LIMITING)
        self._home = home
        self._quota = self._open_quota()
        self._layers, self._sealed_dir, self._parents_dir = home / "dir", home / "sealed", home / "parents"
        self._lock = threading.Lock()
        self._sealed, self._parents = self._read_records()

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not _ID.fullmatch(cache_id):
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        self._check_parent(parent)
        directory = self._layers / cache_id
        with needing_room(f"layer {cache_id}"), ExitStack() as undo:
            try:
                directory.mkdir(0o755)
            except FileExistsError as error:
                raise AlreadyExists(f"layer {cache_id} exists") from error
            undo.callback(self._erase, cache_id)
            if parent is None:
                directory.chmod(0o755)
            else:
                self._note(cache_id, parent)
                copy_tree(self._layers / parent, directory)
            undo.pop_all()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        self._require(cache_id)
        return ()

    def tree(self, cache_id: CacheId) -> Path:
        return self._require(cache_id)

    def mount_point(self, cache_id: CacheId) -> Path:
        return self._require(cache_id)

    def detach(self, cache_id: CacheId) -> None:
        """Nothing was made ready."""

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        self._require(cache_id)
        with self._lock:
            if cache_id not in self._sealed:
                write_file_lazy(self._sealed_dir / cache_id, b"")
                self._sealed.add(cache_id)
        if durable:
            with needing_room(f"layer {cache_id}"):
                sync_filesystem(self._layers)

    def remove(self, cache_id: CacheId) -> None:
        if not _ID.fullmatch(cache_id):
            return
        with self._lock:
            children = sum(parent == cache_id for parent in self._parents.values())
            if children:
                raise LayerInUse(f"layer {cache_id} is the parent of {children} layer(s)")
            if is_mountpoint(self._layers / cache_id):
                raise LayerInUse(f"layer {cache_id} is mounted")
        with self._quota.forgetting(self._layers / cache_id) if self._quota else nullcontext():
            self._erase(cache_id)

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        """The limit counts the copy of the parent too, as in Docker; the layer is copied again, into its project."""
        layer = self._require(cache_id)
        if self._quota is None:
            raise Unsupported(
                "--storage-opt is supported only for vfs over a file system with project quotas",
                hint="put the data root on xfs mounted with pquota, or on ext4 with -O project,quota and prjquota",
            )
        if project_of(layer):
            self._quota.limit([layer], limit_bytes)
            return
        make_dirs(self._home / _LIMITING, 0o700)
        limited = self._home / _LIMITING / cache_id
        with needing_room(f"layer {cache_id} within its limit"), ExitStack() as undo:
            limited.mkdir(0o700)
            undo.callback(remove_tree, limited)
            self._quota.limit([limited], limit_bytes)
            copy_tree(layer, limited)
            libc.renameat2(limited, layer, libc.RENAME_EXCHANGE)
            undo.pop_all()
        remove_tree(limited)

    def cache_ids(self) -> frozenset[CacheId]:
        with os.scandir(self._layers) as listing:
            entries = [entry for entry in listing if _ID.fullmatch(entry.name)]
            return frozenset(CacheId(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False))

    def usage(self, cache_id: CacheId) -> Usage:
        directory = self._require(cache_id)
        parent = self._parents.get(cache_id)
        if parent is None:
            return usage_of(directory, counts_devices=True)
        size_bytes, inodes = change_usage(directory, self._layers / parent)
        return Usage(size_bytes, inodes)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        self._require(cache_id)
        return {}

    def status(self) -> Sequence[tuple[str, str]]:
        return ()

    def close(self) -> None:
        """Nothing is held open."""

    def _open_quota(self) -> QuotaControl | None:
        found = control_of(self._home)
        if found is None and self.default_limit_bytes:
            raise Unsupported(
                "Storage option size not supported. Filesystem does not support Project Quota",
                hint="put the data root on xfs mounted with pquota, or leave the option out",
            )
        return found

    def _require(self, cache_id: CacheId) -> Path:
        path = self._layers / cache_id
        if not _ID.fullmatch(cache_id) or not os.path.lexists(path):
            raise NoSuchLayer(f"no such layer in vfs: {cache_id}")
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise CorruptRecord(
                f"the layer {path} is no directory", hint="remove what uses it; an image can be pulled again"
            )
        return path

    def _check_parent(self, parent: CacheId | None) -> None:
        if parent is None:
            return
        self._require(parent)
        if parent not in self._sealed:
            raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")

    def _note(self, cache_id: CacheId, parent: CacheId) -> None:
        """Make a new layer known, so that its parent can no longer be removed."""
        with self._lock:
            self._require(parent)
            write_file_lazy(self._parents_dir / cache_id, parent.encode("ascii"))
            self._parents[cache_id] = parent

    def _erase(self, cache_id: CacheId) -> None:
        """The tree first: a record without tree is swept at the next start, a tree without record would be a lie."""
        remove_tree(self._layers / cache_id)
        with self._lock:
            self._sealed.discard(cache_id)
            self._parents.pop(cache_id, None)
            for directory in (self._sealed_dir, self._parents_dir):
                remove_tree(directory / cache_id)

    def _read_records(self) -> tuple[set[CacheId], dict[CacheId, CacheId]]:
        """The records of layers that are there; dockerd may have removed some, whose records go too."""
        present = self.cache_ids()
        for directory in (self._sealed_dir, self._parents_dir):
            for name in os.listdir(directory):
                if name not in present:
                    remove_tree(directory / name)
        sealed = {CacheId(name) for name in os.listdir(self._sealed_dir)}
        parents = {CacheId(name): self._read_parent(name) for name in os.listdir(self._parents_dir)}
        return sealed, {child: parent for child, parent in parents.items() if parent in present}

    def _read_parent(self, name: str) -> CacheId:
        """Who the parent is; nobody when that is lost: each layer is whole, so only its usage counts too much."""
        try:
            fd = os.open(self._parents_dir / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return CacheId("")
        try:
            return CacheId(os.read(fd, 1024).decode("ascii", "replace").strip())
        except OSError:  # a directory
            return CacheId("")
        finally:
            os.close(fd)


def _default_limit(options: Mapping[str, str]) -> int | None:
    """`size`, which bounds every writable layer."""
    limit = None
    for key, value in options.items():
        if key in {"size", "vfs.size"}:
            limit = size_option(key, value)
        elif key == "vfs.xattrs":
            raise Unsupported(
                "option vfs.xattrs of storage driver vfs is not served: attributes are kept, or their loss is told",
                hint="put the data root on a file system that keeps extended attributes: ext4, xfs or btrfs",
            )
        else:
            raise InvalidArgument(f"unknown option {key} of storage driver vfs", hint="known: size")
    return limit
