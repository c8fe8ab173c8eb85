"""The overlay2 driver: Docker's layout to the file, so that dockerd opens the same root (blocking).

Rules for editors: `l/<link>` exists before anything names it; a parent gets `committed` before a child names it; a
layer with `committed` is never mounted writable and never written into; `lower` is relative; an empty link is never
used as a path. Source: moby daemon/graphdriver/overlay2/overlay.go.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from lamina.errors import (
    AlreadyExists,
    CorruptRecord,
    InvalidArgument,
    LayerInUse,
    NoSuchLayer,
    StorageFull,
    Unsupported,
)
from lamina.ids import CacheId
from lamina.kernel.durable import make_dirs, sync_filesystem
from lamina.kernel.mounts import LONGEST_DATA, Mount, is_mountpoint
from lamina.kernel.placement import spread_directories
from lamina.rootfs.merge import OverlayMarks
from lamina.rootfs.remove import remove_tree
from lamina.storage.backing import backing_name
from lamina.storage.children import Children
from lamina.storage.driver import Usage, WhiteoutDialect
from lamina.storage.overlay2 import links
from lamina.storage.overlay2.merged import MergedLayers
from lamina.storage.overlay2.probe import Features, probe
from lamina.storage.overlay2.records import (
    Record,
    drop_leftovers,
    link_place,
    lower_directories,
    names_a_layer,
    read_record,
    read_records,
    write_small,
)
from lamina.storage.overlay2.soundness import mend, mend_lowers, require_sound
from lamina.storage.quota_control import QuotaControl, control_of, size_option
from lamina.storage.room import needing_room
from lamina.storage.usage import usage_of

_LAYER_MODE = 0o710
_ROOMY = (Path("/run"), Path("/dev/shm"), Path("/tmp"))
_log = logging.getLogger(__name__)


class Overlay2:
    """Layers below `<root>/overlay2`. Thread-safe; different layers do not wait for each other's disk work."""

    name: ClassVar[str] = "overlay2"

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root, making it when it is new.

        Raises:
            Unsupported: overlay does not work here.
            InvalidArgument: an option this driver does not know.
        """
        self.default_limit_bytes = _default_limit(options or {})
        home = Path(os.path.realpath(root)) / self.name
        make_dirs(home.parent, 0o710)
        self._features = _probed(home)
        if not home.is_dir():
            make_dirs(home, 0o710)
        spread_directories(home)
        make_dirs(home / links.LINK_DIR, 0o700)
        self._quota = self._open_quota(home)
        self._home = home
        self._path = os.fspath(home)
        self._always_relative = re.search(r"[,:\\]", self._path) is not None  # overlay's own separators
        self._lock = threading.Lock()
        user = self._features.user_xattr
        self._records = read_records(self._path)
        mended = mend_lowers(self._path, self._records.values())
        self._merged = MergedLayers(home, OverlayMarks("user.overlay." if user else "trusted.overlay."))
        self._merged.load(self._records.values())
        self.warnings = mended + mend(self._path, self._records.values())
        for warning in self.warnings:
            _log.warning("%s", warning)
        drop_leftovers(self._path, self._records.keys() | self._merged.cache_ids())
        self._children: Children[str] = Children()  # by the link of the parent
        for record in self._records.values():
            self._note_parent(record)
        self.dialect = dialect_of(self._features)

    @property
    def features(self) -> Features:
        """What the probe found; `native_diff` false means that `upper` alone does not tell a layer's changes."""
        return self._features

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not names_a_layer(cache_id):
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        record = Record(cache_id, links.short_link(os.urandom(17)), "", sealed=False)
        directory = f"{self._path}/{cache_id}"
        with needing_room(f"layer {cache_id}"), ExitStack() as undo:
            if parent is not None:
                record.lower = self._merged.fitted(self._lower_on(parent), record.link)
                undo.callback(self._merged.leave, record.lower, record.link)
            try:
                os.mkdir(directory, _LAYER_MODE)
            except FileExistsError as error:
                raise AlreadyExists(f"layer {cache_id} exists") from error
            undo.callback(remove_tree, Path(directory))
            self._note(record, parent)
            undo.callback(self._forget, record)
            self._fill(record, directory, undo)
            undo.pop_all()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        record = self._record(cache_id)
        require_sound(self._path, record)
        if not record.lower:
            return ()
        if not record.sealed:
            _make_work(f"{self._path}/{cache_id}/work")
        merged = f"{self._path}/{cache_id}/merged"
        with suppress(FileExistsError):
            os.mkdir(merged, 0o700)
        data = self._features.options + self._data(record, f"{self._path}/")
        if len(data) <= LONGEST_DATA and not self._always_relative:
            return (Mount("overlay", "overlay", Path(merged), data=data),)
        data = self._features.options + self._data(record, "")
        return (Mount("overlay", "overlay", Path(merged), data=data, cwd=self._home),)

    def tree(self, cache_id: CacheId) -> Path:
        return self._home / cache_id / ("merged" if self._record(cache_id).lower else "diff")

    def mount_point(self, cache_id: CacheId) -> Path:
        return self.tree(cache_id)

    def detach(self, cache_id: CacheId) -> None:
        # rmdir also takes the mount out of every other mount namespace that still shows it.
        with suppress(FileNotFoundError):
            os.rmdir(f"{self._path}/{cache_id}/merged")

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        record = self._record(cache_id)
        if not record.sealed:
            self._mark_sealed(record)
        if durable:
            with needing_room(f"layer {cache_id}"):  # delayed allocation: only now the kernel finds blocks
                sync_filesystem(self._home)

    def rebase(self, cache_id: CacheId, parent: CacheId) -> None:
        record = self._record(cache_id)
        if record.sealed:
            raise LayerInUse(f"layer {cache_id} is sealed: it cannot be put on another parent")
        above = self._lower_on(parent)
        if record.lower:
            if links.lower_links(record.lower)[0] == links.lower_links(above)[0]:
                return
            raise LayerInUse(f"layer {cache_id} already has a parent")
        lower = self._merged.fitted(above, record.link)
        with ExitStack() as undo:
            undo.callback(self._merged.leave, lower, record.link)
            fd = _open_directory(f"{self._path}/{cache_id}")
            try:
                _make_directory(fd, "work", 0o700)
                write_small(fd, "lower", lower, 0o644)
            finally:
                os.close(fd)
            undo.pop_all()
        with self._lock:
            record.lower = lower
            self._note_parent(record)

    def remove(self, cache_id: CacheId) -> None:
        record = self._find(cache_id)
        if record is None:
            return
        directory = f"{self._path}/{cache_id}"
        with self._lock:
            children = self._children.count(record.link)
            if children:
                raise LayerInUse(f"layer {cache_id} is the parent of {children} layer(s)")
            if is_mountpoint(Path(directory, "merged")):
                raise LayerInUse(f"layer {cache_id} is mounted")
            self._forget_locked(record)
        if record.link:  # an empty one would name the whole `l/` directory
            with suppress(FileNotFoundError):
                os.unlink(link_place(self._path, record.link))
        with self._quota.forgetting(Path(directory)) if self._quota else nullcontext():
            remove_tree(Path(directory))
        self._merged.leave(record.lower, record.link)

    def cache_ids(self) -> frozenset[CacheId]:
        with self._lock:
            return frozenset(self._records)

    def usage(self, cache_id: CacheId) -> Usage:
        return usage_of(self.upper(cache_id), counts_devices=False)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        record = self._record(cache_id)
        directory = f"{self._path}/{cache_id}"
        found = {
            "MergedDir": f"{directory}/merged",
            "UpperDir": f"{directory}/diff",
            "WorkDir": f"{directory}/work",
        }
        if not record.lower:
            return found
        return {"LowerDir": ":".join(os.fspath(lower) for lower in self.lowers(cache_id)), **found}

    def status(self) -> Sequence[tuple[str, str]]:
        features = self._features
        return (
            ("Backing Filesystem", features.backing),
            ("Supports d_type", "true"),
            ("Using metacopy", _go_bool(value=features.metacopy)),
            ("Native Overlay Diff", _go_bool(value=features.native_diff)),
            ("userxattr", _go_bool(value=features.user_xattr)),
        )

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        record = self._record(cache_id)
        if self._quota is None:
            raise Unsupported(
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
                hint="put the data root on xfs, or on ext4 made with -O project,quota, mounted with prjquota",
            )
        directory = self._home / cache_id
        owned = [directory, directory / "diff", *([directory / "work"] if record.lower else [])]
        self._quota.limit(owned, limit_bytes)

    def close(self) -> None:
        """Nothing is held open."""

    def upper(self, cache_id: CacheId) -> Path:
        self._record(cache_id)
        return self._home / cache_id / "diff"

    def lowers(self, cache_id: CacheId) -> tuple[Path, ...]:
        record = self._record(cache_id)
        try:
            return lower_directories(self._home, links.lower_links(record.lower))
        except OSError as error:
            raise CorruptRecord(f"layer {cache_id} names a layer below it that is gone: {error.filename}") from error

    def _open_quota(self, home: Path) -> QuotaControl | None:
        if self._features.backing not in {"xfs", "extfs"} or self._features.user_xattr:
            found = None
        else:
            found = control_of(home)
        if found is None and self.default_limit_bytes:
            raise Unsupported(
                "Storage option overlay2.size not supported. Filesystem does not support Project Quota",
                hint="put the data root on xfs mounted with pquota, or leave the option out",
            )
        return found

    def _fill(self, record: Record, directory: str, undo: ExitStack) -> None:
        fd = _open_directory(directory)
        try:
            os.fchmod(fd, _LAYER_MODE)
            _make_directory(fd, "diff", 0o755)
            place = link_place(self._path, record.link)
            os.symlink(f"../{record.cache_id}/diff", place)
            undo.callback(os.unlink, place)
            write_small(fd, "link", record.link, 0o644)
            if record.lower:
                _make_directory(fd, "work", 0o700)
                write_small(fd, "lower", record.lower, 0o644)
        finally:
            os.close(fd)

    def _data(self, record: Record, prefix: str) -> str:
        """The directories, as overlay options: a writable layer has an upper and a work directory too."""
        own = f"{prefix}{record.cache_id}"
        lower = record.lower if not prefix else prefix + record.lower.replace(":", ":" + prefix)
        if record.sealed:
            return f"lowerdir={own}/diff:{lower}"
        return f"lowerdir={lower},upperdir={own}/diff,workdir={own}/work"

    def _lower_on(self, parent: CacheId) -> str:
        above = self._record(parent)
        if not above.sealed:
            raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")
        if not above.link:
            raise CorruptRecord(f"layer {parent} has lost its short name", hint="remove the image and pull it again")
        return links.lower_on(above.link, above.lower)

    def _mark_sealed(self, record: Record) -> None:
        fd = _open_directory(f"{self._path}/{record.cache_id}")
        try:
            write_small(fd, "committed", "", 0o600)
        finally:
            os.close(fd)
        record.sealed = True

    def _record(self, cache_id: CacheId) -> Record:
        record = self._find(cache_id)
        if record is None:
            raise NoSuchLayer(f"no such layer in overlay2: {cache_id}")
        if not record.sound:
            raise CorruptRecord(f"the file {self._path}/{cache_id}/lower is damaged")
        return record

    def _find(self, cache_id: CacheId) -> Record | None:
        record = self._records.get(cache_id)
        if record is None and names_a_layer(cache_id):
            record = read_record(self._path, cache_id)
            if record is not None:
                with self._lock:
                    record = self._records.setdefault(cache_id, record)
                    self._note_parent(record)
                self._merged.join(record)
        return record

    def _note(self, record: Record, parent: CacheId | None) -> None:
        """Make a new layer known, so that its parent can no longer be removed."""
        with self._lock:
            if parent is not None and parent not in self._records:
                raise NoSuchLayer(f"no such layer in overlay2: {parent}")
            self._records[record.cache_id] = record
            self._note_parent(record)

    def _note_parent(self, record: Record) -> None:
        if record.lower:
            self._children.add(links.lower_links(record.lower)[0], record.cache_id)

    def _forget(self, record: Record) -> None:
        with self._lock:
            self._forget_locked(record)

    def _forget_locked(self, record: Record) -> None:
        self._records.pop(record.cache_id, None)
        if record.lower:
            self._children.discard(links.lower_links(record.lower)[0], record.cache_id)


def _probed(home: Path) -> Features:
    """What overlay does there. A full disk must not keep a daemon from starting: how else would room be made?

    With a home that was good before, the kernel's part is then tried where there is room.
    """
    if not home.is_dir():
        return probe(home.parent)
    try:
        return probe(home)
    except StorageFull:
        for elsewhere in _ROOMY:
            with suppress(Unsupported, StorageFull, OSError):
                return replace(probe(elsewhere), backing=backing_name(home))
        raise


def dialect_of(features: Features) -> WhiteoutDialect:
    """Without native diff an upper directory tells only half: then layers are filled and told through their mounts."""
    if not features.native_diff:
        return WhiteoutDialect.NONE
    return WhiteoutDialect.OVERLAY_USERXATTR if features.user_xattr else WhiteoutDialect.OVERLAY


def _default_limit(options: Mapping[str, str]) -> int | None:
    """`overlay2.size`, the only option that does something; dockerd's `overlay2.override_kernel_check` does not."""
    limit = None
    for key, value in options.items():
        if key.lower() == "overlay2.size":
            limit = size_option(key, value)
        elif key.lower() != "overlay2.override_kernel_check":
            raise InvalidArgument(f"unknown option {key} of storage driver overlay2", hint="known: overlay2.size")
    return limit


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _make_work(path: str) -> None:
    """The kernel's own, which holds nothing that counts: one that is lost is made again."""
    if not os.path.isdir(path):
        os.mkdir(path, 0o700)


def _make_directory(parent_fd: int, name: str, mode: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent_fd)
    os.chmod(name, mode, dir_fd=parent_fd)


def _go_bool(*, value: bool) -> str:
    return "true" if value else "false"
