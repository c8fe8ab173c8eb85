"""The devicemapper driver: Docker's layout to the file, so that dockerd opens the same root (blocking).

`metadata/<id>` is a layer's record, `mnt/<id>` where its device is mounted, `mnt/<id>/rootfs` its tree. The pool stands
on loop files below `devicemapper/`, or is one that was made before (`dm.thinpooldev`). Beside them, and unknown to
dockerd, lie the `marks`. Source: moby daemon/graphdriver/devmapper/driver.go.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from lamina.errors import (
    AlreadyExists,
    CorruptRecord,
    InvalidArgument,
    LaminaError,
    LayerInUse,
    NoSuchLayer,
    StorageFull,
    Unsupported,
)
from lamina.ids import CacheId
from lamina.kernel.detached import mounted_apart
from lamina.kernel.devicemapper import Device
from lamina.kernel.durable import make_dirs
from lamina.kernel.mounts import Mount, is_mountpoint
from lamina.rootfs.diff import change_usage
from lamina.storage.devicemapper import status
from lamina.storage.devicemapper.base_device import Base, check_size, grow_layer, known_base, make_base, own_options
from lamina.storage.devicemapper.devices import Devices
from lamina.storage.devicemapper.directlvm import pool_from_lvm
from lamina.storage.devicemapper.keyed import KeyedLocks
from lamina.storage.devicemapper.marks import Marks
from lamina.storage.devicemapper.metadata import Metadata
from lamina.storage.devicemapper.mountoptions import split_options
from lamina.storage.devicemapper.options import parse_options
from lamina.storage.devicemapper.place import LOOP_WARNING, open_place
from lamina.storage.devicemapper.probe import open_mapper
from lamina.storage.devicemapper.records import BASE, DeviceSet, device_name, layer_of
from lamina.storage.devicemapper.recovery import settle, stop_strays
from lamina.storage.devicemapper.sizes import human
from lamina.storage.driver import Usage
from lamina.storage.room import needing_room
from lamina.storage.usage import usage_of

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MS_RDONLY = 1
_AGAIN_S = 30.0
_LEAST_ROOM = 1 << 20
_LITTLE_BLOCKS = 64
"""A layer that took fewer blocks is removed without discarding them, which costs more than the rest of the removal."""


class DeviceMapperDriver:
    """Layers below `<root>/devicemapper`. Thread-safe; the pool is changed by one thread at a time."""

    name: ClassVar[str] = "devicemapper"

    def __init__(self, root: Path, options: Mapping[str, str] | None = None) -> None:
        """Open the driver's home below the data root; make the pool and the base device when they are new.

        Raises:
            Unsupported: no device-mapper, or a program or kernel part is missing.
            InvalidArgument: an option that is unknown or makes no sense.
            Conflict, CorruptRecord, NotFound: the pool is not there, is damaged, or is another store's.
        """
        self._options = parse_options(options or {})
        self._home = Path(os.path.realpath(root)) / self.name
        self._lock = threading.Lock()
        self._each = KeyedLocks()
        self._attached: set[str] = set()
        self._taken: dict[str, int] = {}
        self._used_before: dict[str, int] = {}
        self._held: dict[CacheId, ExitStack] = {}
        self._again: threading.Timer | None = None
        with ExitStack() as undo:
            self._mapper = open_mapper()
            undo.callback(self._mapper.close)
            make_dirs(self._home.parent, 0o710)
            make_dirs(self._home, 0o700)
            make_dirs(self._home / "mnt", 0o755)
            self.warnings = self._open(undo)
            undo.pop_all()
        for warning in self.warnings:
            _LOG.warning("%s", warning)
        self._put_off = set(self._devices.deleted())
        self._retry_deleted()

    def _open(self, undo: ExitStack) -> tuple[str, ...]:
        """Everything below the layers; gives what people should know."""
        metadata = Metadata(self._home / "metadata")
        records, damaged = metadata.load()
        prefix = _prefix(self._home)
        options = pool_from_lvm(self._home, self._options, self._mapper)
        self._place = open_place(self._mapper, self._home, prefix, options, has_layers=bool(records or damaged))
        undo.callback(self._drop_pool)
        self._devices = Devices(self._mapper, self._place.pool, metadata, prefix, options)
        stop_strays(self._devices, self._mapper)
        warnings = [LOOP_WARNING] if self._place.is_on_loop else []
        base, found = known_base(self._devices)
        warnings += [*found, *settle(self._devices)]
        if base is None:
            base = make_base(self._devices, options)
        elif options.fstype and options.fstype != base.fstype:
            warnings.append(f"dm.fs={options.fstype} is ignored: the base device has {base.fstype}")
        check_size(self._devices, base, options)
        self._base: Base = base
        self._flags, self._data = split_options(own_options(base.fstype), options.mount_options)
        self._marks = Marks(self._home, self.cache_ids())
        return tuple(warnings)

    # --- the protocol ----------------------------------------------------------------------------------------------

    def create(self, cache_id: CacheId, parent: CacheId | None) -> None:
        if not _ID.fullmatch(cache_id) or len(self._devices.kernel_name(device_name(cache_id))) > 127:
            raise InvalidArgument(f"invalid layer id {cache_id!r}")
        origin = BASE if parent is None else device_name(parent)
        name = device_name(cache_id)
        with self._each.locked(*{origin, name}), needing_room(f"layer {cache_id}"), ExitStack() as undo:
            self._check_parent(parent)
            self._check_room_below(cache_id)
            if name in self._devices.records:
                raise AlreadyExists(f"layer {cache_id} exists")
            if parent is not None:
                with self._lock:
                    self._marks.note_parent(cache_id, parent)
                undo.callback(self._forget_marks, cache_id)
            self._devices.snapshot(name, origin)
            undo.callback(self._devices.delete, name, at_once=True)
            if parent is None:
                self._begin_tree(cache_id)
            else:
                self._taken[name] = 0
            undo.pop_all()

    def attach(self, cache_id: CacheId) -> tuple[Mount, ...]:
        name = self._require(cache_id)
        with self._each.locked(name):
            device = self._devices.activate(name)
            if name not in self._attached and name in self._taken:
                self._used_before[name] = self._devices.pool.status().data_used
            self._attached.add(name)
            target = self._home / "mnt" / cache_id
            with suppress(FileExistsError):
                target.mkdir(0o755)
            sealed = self._marks.is_sealed(cache_id)
            flags = self._flags | (_MS_RDONLY if sealed else 0)
            if self._options.xfs_nospace_retries and self._base.fstype == "xfs":
                self._give_up_when_full(cache_id, device, read_only=sealed)
            return (Mount(self._base.fstype, os.fspath(device.node), target, flags, self._data),)

    def tree(self, cache_id: CacheId) -> Path:
        return self.mount_point(cache_id) / "rootfs"

    def mount_point(self, cache_id: CacheId) -> Path:
        self._require(cache_id)
        return self._home / "mnt" / cache_id

    def detach(self, cache_id: CacheId) -> None:
        if not _ID.fullmatch(cache_id):
            return
        name = device_name(cache_id)
        with self._each.locked(name):
            held = self._held.pop(cache_id, None)
            if held is not None:
                held.close()
            # rmdir also takes the mount out of every other mount namespace that still shows it.
            with suppress(FileNotFoundError):
                os.rmdir(self._home / "mnt" / cache_id)
            if name in self._attached:
                self._attached.discard(name)
                self._note_taken(name)
            self._devices.deactivate(name)

    def seal(self, cache_id: CacheId, *, durable: bool = True) -> None:
        self._require(cache_id)
        with self._lock:
            self._marks.seal(cache_id)
        if durable:
            with needing_room(f"layer {cache_id}"):
                self._sync(cache_id)

    def remove(self, cache_id: CacheId) -> None:
        name = device_name(cache_id)
        if not _ID.fullmatch(cache_id):
            return
        with self._each.locked(name):
            record = self._devices.records.get(name)
            if record is None or record.deleted:
                if name in self._devices.damaged:
                    self._devices.forget(name)
                return
            self._refuse_used(cache_id)
            little = self._taken.pop(name, _LITTLE_BLOCKS) < _LITTLE_BLOCKS
            gone = self._devices.delete(name, discards=not little)
            with self._lock:
                self._marks.forget(cache_id)
                if not gone:
                    self._put_off.add(name)
            with suppress(FileNotFoundError):
                os.rmdir(self._home / "mnt" / cache_id)
        self._retry_deleted()

    def cache_ids(self) -> frozenset[CacheId]:
        records = dict(self._devices.records)
        return frozenset(layer_of(name) for name, record in records.items() if name != BASE and not record.deleted)

    def usage(self, cache_id: CacheId) -> Usage:
        self._require(cache_id)
        parent = self._marks.parent(cache_id)
        with self._looking(cache_id) as tree:
            if parent is None:
                return usage_of(tree, counts_devices=True)
            with self._looking(parent) as below:
                size_bytes, inodes = change_usage(tree, below)
        return Usage(size_bytes, inodes)

    def describe(self, cache_id: CacheId) -> Mapping[str, str]:
        name = self._require(cache_id)
        record = self._devices.record(name)
        return {
            "DeviceId": str(record.device_id),
            "DeviceName": self._devices.kernel_name(name),
            "DeviceSize": str(record.size_bytes),
        }

    def status(self) -> Sequence[tuple[str, str]]:
        version = ".".join(map(str, self._mapper.version()))
        found = status.rows(self._place, self._devices, self._base.fstype, self._options)
        return (*found, ("Library Version", f"none is needed: kernel interface {version}"))

    def limit_size(self, cache_id: CacheId, limit_bytes: int) -> None:
        name = self._require(cache_id)
        with self._each.locked(name):
            present = self._devices.record(name).size_bytes
            if limit_bytes < present:
                raise InvalidArgument(
                    f"--storage-opt size: with devicemapper it cannot be smaller than the base, {human(present)}"
                )
            if limit_bytes - limit_bytes % 512 > present:
                grow_layer(self._devices, name, self._base, limit_bytes - limit_bytes % 512)

    def close(self) -> None:
        """Twice is fine. Devices that containers use stay, and the pool below them; all others go."""
        if self._again is not None:
            self._again.cancel()
        with self._lock:
            if self._mapper.is_closed:
                return
            told = DeviceSet(self._devices.next_device_id, self._base.uuid, self._base.fstype)
            with suppress(OSError):  # a full disk must not keep the daemon from ending
                self._devices.metadata.write_device_set(told)
            with suppress(OSError, LaminaError):
                stop_strays(self._devices, self._mapper)
            self._drop_pool()
            self._mapper.close()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _require(self, cache_id: CacheId) -> str:
        """The layer's name in the records. Raises NoSuchLayer, CorruptRecord."""
        if not _ID.fullmatch(cache_id):
            raise NoSuchLayer(f"no such layer in devicemapper: {cache_id}")
        name = device_name(cache_id)
        self._devices.record(name)
        return name

    def _check_parent(self, parent: CacheId | None) -> None:
        if parent is None:
            return
        self._require(parent)
        if not self._marks.is_sealed(parent):
            raise LayerInUse(f"layer {parent} is not sealed: it cannot be a parent yet")

    def _check_room_below(self, cache_id: CacheId) -> None:
        file = self._place.data_file
        if file is not None and status.free_below(file) < _LEAST_ROOM:
            raise StorageFull(f"no room for layer {cache_id}: the file system of {file} is full")

    def _forget_marks(self, cache_id: CacheId) -> None:
        with self._lock:
            self._marks.forget(cache_id)

    def _refuse_used(self, cache_id: CacheId) -> None:
        with self._lock:
            children = self._marks.children(cache_id)
        if children:
            raise LayerInUse(f"layer {cache_id} is the parent of {children} layer(s)")
        if is_mountpoint(self._home / "mnt" / cache_id):
            raise LayerInUse(f"layer {cache_id} is mounted")

    def _begin_tree(self, cache_id: CacheId) -> None:
        """Make `rootfs`, and the `id` of the lowest layer, which all above inherit; dockerd does at the first mount."""
        with self._inside(cache_id, read_only=False) as top:
            (top / "rootfs").mkdir(0o755)
            (top / "rootfs").chmod(0o755)
            fd = os.open(top / "id", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="ascii") as file:
                file.write(cache_id)

    @contextmanager
    def _looking(self, cache_id: CacheId) -> Iterator[Path]:
        """The layer's tree to read, whether it is mounted or not."""
        with ExitStack() as stack:
            try:
                top = stack.enter_context(self._inside(cache_id, read_only=True))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                top = stack.enter_context(self._inside(cache_id, read_only=False))  # mounted writable elsewhere
            yield top / "rootfs"

    @contextmanager
    def _inside(self, cache_id: CacheId, *, read_only: bool) -> Iterator[Path]:
        """The root of the layer's file system, at a place that only this process sees."""
        name = self._require(cache_id)
        with ExitStack() as stack:
            with self._each.locked(name):
                device = self._devices.activate(name)
                stack.callback(self._let_go, name)
                top = stack.enter_context(
                    mounted_apart(self._base.fstype, device.node, options=self._data, read_only=read_only)
                )
            yield top

    def _let_go(self, name: str) -> None:
        """The device goes unless the layer is mounted; while somebody looks into it, it goes with that look."""
        with self._each.locked(name):
            if name not in self._attached and not is_mountpoint(self._home / "mnt" / layer_of(name)):
                self._devices.deactivate(name)

    def _note_taken(self, name: str) -> None:
        """How many blocks the pool gave while the layer was mounted; to others too, so it is rather too many."""
        before = self._used_before.pop(name, None)
        if before is not None and name in self._taken:
            with suppress(CorruptRecord):
                self._taken[name] += max(0, self._devices.pool.status().data_used - before)

    def _give_up_when_full(self, cache_id: CacheId, device: Device, *, read_only: bool) -> None:
        """`dm.xfs_nospace_max_retries`: xfs retries writes into a full pool for ever otherwise.

        The setting belongs to the mounted file system, so it is mounted here already, for as long as the layer is.
        """
        if cache_id in self._held:
            return
        with ExitStack() as stack:
            stack.enter_context(mounted_apart("xfs", device.node, options=self._data, read_only=read_only))
            place = Path(f"/sys/fs/xfs/{device.node.name}/error/metadata/ENOSPC/max_retries")
            try:
                place.write_text(self._options.xfs_nospace_retries, encoding="ascii")
            except OSError as error:
                raise Unsupported(f"dm.xfs_nospace_max_retries: this kernel does not take it: {error}") from error
            self._held[cache_id] = stack.pop_all()

    def _sync(self, cache_id: CacheId) -> None:
        """What is mounted is written out, which flushes the pool too; what is not was, at its last unmount."""
        place = self._home / "mnt" / cache_id
        if is_mountpoint(place):
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        self._devices.pool.flush()

    def _retry_deleted(self) -> None:
        """Try the removals that were put off; those that are still busy come again in half a minute."""
        for name in sorted(self._put_off):
            with self._each.locked(name):
                try:
                    if name not in self._devices.records or self._devices.delete(name):
                        self._put_off.discard(name)
                except (LaminaError, OSError) as error:
                    _LOG.warning("the removal of layer %s is still to be done: %s", name, error)
        with self._lock:
            waits = self._again is not None and self._again.is_alive()
            if not self._put_off or waits or self._mapper.is_closed:
                return
            self._again = threading.Timer(_AGAIN_S, _retry, (weakref.ref(self),))
            self._again.daemon = True
            self._again.start()

    def _drop_pool(self) -> None:
        """Remove the pool if it is ours and nothing uses it; a device may take a moment to go after its unmount."""
        if not self._place.is_ours:
            return
        for _ in range(40):
            try:
                self._mapper.remove(self._place.pool.name, deferred=False)
            except OSError as error:
                if error.errno != errno.EBUSY or self._has_users():
                    return
                time.sleep(0.05)
            else:
                return

    def _has_users(self) -> bool:
        prefix, pool = f"{_prefix(self._home)}-", self._place.pool.name
        names = [name for name in self._mapper.names() if name.startswith(prefix) and name != pool]
        found = [self._mapper.find(name) for name in names]
        return any(device is not None and device.users and not device.goes_when_closed for device in found)


def _retry(driver: weakref.ref[DeviceMapperDriver]) -> None:
    """The timer's work; a driver that nobody has any more is left alone."""
    found = driver()
    if found is not None:
        with suppress(OSError, LaminaError):
            found._again = None  # noqa: SLF001 - its own timer
            found._retry_deleted()  # noqa: SLF001


def _prefix(home: Path) -> str:
    """`docker-<major>:<minor>-<inode>` of the home: what the names of all devices of this store begin with."""
    found = home.stat()
    return f"docker-{os.major(found.st_dev)}:{os.minor(found.st_dev)}-{found.st_ino}"
