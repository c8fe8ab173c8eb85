"""The aufs driver: Docker's layout to the file, shown by the kernel's aufs or by our own union on FUSE (blocking).

`diff/<id>` is what a layer changes, in aufs' names; `layers/<id>` names the layers below it; `mnt/<id>` is where it is
seen. A layer without parent is seen in `diff/<id>` itself. What dockerd does not keep lies beside: `sealed/<id>`.

Rules for editors: `layers/<id>` comes last at creation; `diff/<id>` goes first at removal, moved to `…-removing`; the
mount point is never looked at to learn something about a layer, because its server may be dead.
Source: moby v23 daemon/graphdriver/aufs.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lamina.errors import AlreadyExists, CorruptRecord, InvalidArgument, LayerInUse, NoSuchLayer
from lamina.ids import CacheId
from lamina.kernel.durable import make_dirs, sync_filesystem, write_file_lazy
from lamina.kernel.mounts import LONGEST_DATA, Mount, is_mountpoint
from lamina.kernel.placement import spread_directories
from lamina.rootfs.remove import remove_tree
from lamina.storage.aufs.branches import kernel_mounts, union_mount
from lamina.storage.aufs.probe import SCRATCH_PREFIX, Features, probe
from lamina.storage.aufs.records import (
    ID,
    REMOVING,
    Record,
    drop_leftovers,
    read_record,
    read_records,
    remove_files,
    write_below,
)
from lamina.storage.children import Children
from lamina.storage.driver import Usage, WhiteoutDialect
from lamina.storage.room import needing_room
from lamina.storage.usage import usage_of

_MOST_KERNEL_BRANCHES = 127
"""What the kernel's aufs is built for unless told otherwise (CONFIG_AUFS_BRANCH_MAX_127)."""


class Aufs:
    """Layers below `<root>/aufs`. Thread-safe; different layers do not wait for each other's disk work."""

    name: ClassVar[str] = "aufs"
    dialect = WhiteoutDialect.AUFS

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root, making it when it is new.

        Raises:
            Unsupported: neither aufs nor FUSE works here.
            InvalidArgument: an option; this driver has none.
        """
        for key in options or {}:
            raise InvalidArgument(f"unknown option {key} of storage driver aufs")
        home = Path(os.path.realpath(root)) / self.name
        make_dirs(home.parent, 0o710)
        features = probe(home if home.is_dir() else home.parent)
        if re.search(r"[,:=]", os.fspath(home)):
            features = replace(features, kernel=False)  # aufs' own separators
        self._features = features
        for directory in (home, home / "mnt", home / "diff", home / "layers"):
            make_dirs(directory, 0o710)
        make_dirs(home / "sealed", 0o700)
        spread_directories(home / "diff")
        self._home = home
        self._lock = threading.Lock()
        self._records = read_records(home)
        drop_leftovers(home, set(self._records))
        for name in os.listdir(home):
            if name.startswith(SCRATCH_PREFIX):
                remove_tree(home / name)
        self._children: Children[CacheId] = Children()
        for record in self._records.values():
            self._note_parent(record)

    @property
    def features(self) -> Features:
        return self._features

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not ID.fullmatch(cache_id) or cache_id.endswith(REMOVING) or cache_id.startswith(SCRATCH_PREFIX):
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        record = Record(cache_id, self._stack_on(parent), sealed=False)
        with needing_room(f"layer {cache_id}"), ExitStack() as undo:
            if os.path.lexists(self._home / "layers" / cache_id):
                raise AlreadyExists(f"layer {cache_id} exists")
            for part in ("mnt", "diff"):
                try:
                    os.mkdir(self._home / part / cache_id, 0o755)
                except FileExistsError as error:
                    raise AlreadyExists(f"layer {cache_id} exists") from error
                undo.callback(remove_tree, self._home / part / cache_id)
                (self._home / part / cache_id).chmod(0o755)
            self._note(record, parent)
            undo.callback(self._forget, record)
            write_below(self._home, cache_id, record.below)
            undo.pop_all()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        record = self._record(cache_id)
        if not record.below:
            return ()
        diffs, target = self._home / "diff", self._home / "mnt" / cache_id
        with suppress(FileExistsError):
            os.mkdir(target, 0o755)
        if not self._features.kernel:
            return (union_mount(cache_id, record.below, diffs, target, sealed=record.sealed),)
        return kernel_mounts(
            diffs / cache_id,
            [diffs / below for below in record.below],
            target,
            sealed=record.sealed,
            dirperm1=self._features.dirperm1,
            page_bytes=LONGEST_DATA + 1,
        )

    def tree(self, cache_id: CacheId) -> Path:
        return self._home / ("mnt" if self._record(cache_id).below else "diff") / cache_id

    def mount_point(self, cache_id: CacheId) -> Path:
        return self.tree(cache_id)

    def detach(self, cache_id: CacheId) -> None:
        # rmdir also takes the mount out of every other mount namespace that still shows it, which ends its server.
        target = self._home / "mnt" / cache_id
        with suppress(OSError):
            os.rmdir(target)
            if cache_id in self._records:
                os.mkdir(target, 0o755)

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        record = self._record(cache_id)
        if not record.sealed:
            write_file_lazy(self._home / "sealed" / cache_id, b"")
            record.sealed = True
        if durable:
            with needing_room(f"layer {cache_id}"):  # delayed allocation: only now the kernel finds blocks
                sync_filesystem(self._home)

    def rebase(self, cache_id: CacheId, parent: CacheId) -> None:
        record = self._record(cache_id)
        if record.sealed:
            raise LayerInUse(f"layer {cache_id} is sealed: it cannot be put on another parent")
        below = self._stack_on(parent)
        if record.below == below:
            return
        if record.below:
            raise LayerInUse(f"layer {cache_id} already has a parent")
        with needing_room(f"layer {cache_id}"):
            write_below(self._home, cache_id, below)
        with self._lock:
            record.below = below
            self._note_parent(record)

    def remove(self, cache_id: CacheId) -> None:
        record = self._find(cache_id)
        if record is None:
            return
        with self._lock:
            children = self._children.count(cache_id)
            if children:
                raise LayerInUse(f"layer {cache_id} is the parent of {children} layer(s)")
            if is_mountpoint(self._home / "mnt" / cache_id):
                raise LayerInUse(f"layer {cache_id} is mounted")
            self._forget_locked(record)
        remove_files(self._home, cache_id)

    def cache_ids(self) -> frozenset[CacheId]:
        with self._lock:
            return frozenset(self._records)

    def usage(self, cache_id: CacheId) -> Usage:
        return usage_of(self.upper(cache_id), counts_devices=True)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        self._record(cache_id)
        return {}  # dockerd's driver tells nothing either

    def status(self) -> Sequence[tuple[str, str]]:
        return (
            ("Root Dir", os.fspath(self._home)),
            ("Backing Filesystem", self._features.backing),
            ("Dirs", str(len(self.cache_ids()))),
            ("Dirperm1 Supported", "true" if self._features.dirperm1 else "false"),
            ("Union", self._features.union),
        )

    def close(self) -> None:
        """Nothing is held open; unions that are mounted have processes of their own."""

    def upper(self, cache_id: CacheId) -> Path:
        self._record(cache_id)
        return self._home / "diff" / cache_id

    def lowers(self, cache_id: CacheId) -> tuple[Path, ...]:
        return tuple(self._home / "diff" / below for below in self._record(cache_id).below)

    def _stack_on(self, parent: CacheId | None) -> tuple[CacheId, ...]:
        if parent is None:
            return ()
        above = self._record(parent)
        if not above.sealed:
            raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")
        if self._features.kernel and len(above.below) + 2 > _MOST_KERNEL_BRANCHES:
            raise InvalidArgument(
                f"max depth exceeded: the kernel's aufs stacks at most {_MOST_KERNEL_BRANCHES} layers"
            )
        return (parent, *above.below)

    def _record(self, cache_id: CacheId) -> Record:
        record = self._find(cache_id)
        if record is None:
            raise NoSuchLayer(f"no such layer in aufs: {cache_id}")
        if record.damage:
            raise CorruptRecord(
                f"layer {cache_id} cannot be used ({self._home}/layers/{cache_id}): {record.damage}",
                hint="remove the image or container that has it, and pull or create it again",
            )
        return record

    def _find(self, cache_id: CacheId) -> Record | None:
        record = self._records.get(cache_id)
        if record is None and ID.fullmatch(cache_id) and os.path.isdir(self._home / "diff" / cache_id):
            record = read_record(self._home, cache_id)
            if record is not None:
                with self._lock:
                    record = self._records.setdefault(cache_id, record)
                    self._note_parent(record)
        return record

    def _note(self, record: Record, parent: CacheId | None) -> None:
        """Make a new layer known, so that its parent can no longer be removed."""
        with self._lock:
            if parent is not None and parent not in self._records:
                raise NoSuchLayer(f"no such layer in aufs: {parent}")
            self._records[record.cache_id] = record
            self._note_parent(record)

    def _note_parent(self, record: Record) -> None:
        if record.below:
            self._children.add(record.below[0], record.cache_id)

    def _forget(self, record: Record) -> None:
        with self._lock:
            self._forget_locked(record)

    def _forget_locked(self, record: Record) -> None:
        self._records.pop(record.cache_id, None)
        if record.below:
            self._children.discard(record.below[0], record.cache_id)
