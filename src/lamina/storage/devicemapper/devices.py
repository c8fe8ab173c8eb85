"""The thin devices of one store: made, deleted, activated, in Docker's transactions (blocking, thread-safe).

A change opens a transaction (the pool's number plus one, on disk, naming the device), changes the pool, then the
device's record, and closes by giving the pool the new number. What a crash leaves is settled in `recovery`.
Source: moby daemon/graphdriver/devmapper/deviceset.go.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lamina.errors import AlreadyExists, CorruptRecord, LayerInUse, NoSuchLayer
from lamina.kernel.devicemapper import Device, DeviceMapper
from lamina.kernel.dm_ioctl import SECTOR
from lamina.storage.devicemapper.metadata import Metadata
from lamina.storage.devicemapper.options import Options
from lamina.storage.devicemapper.pool import Pool, check_room
from lamina.storage.devicemapper.records import BASE, MOST_DEVICE_ID, DeviceRecord, Transaction

_BLKDISCARD = 0x1277  # linux/fs.h: _IO(0x12, 119)
_BUSY_TRIES, _BUSY_WAIT_S = 200, 0.1  # Docker's
_RACE_TRIES = 50


class Devices:
    """The records in memory and on disk, and the devices they stand for. Names are Docker's; `BASE` is the base."""

    def __init__(self, mapper: DeviceMapper, pool: Pool, metadata: Metadata, prefix: str, options: Options) -> None:
        self._mapper = mapper
        self.pool = pool
        self.metadata = metadata
        self.prefix = prefix
        self._options = options
        self._lock = threading.RLock()
        self.next_device_id = 0
        self.records, self.damaged = metadata.load()
        self.transaction_id = pool.status().transaction_id

    def kernel_name(self, name: str) -> str:
        """What the kernel calls the device."""
        return f"{self.prefix}-{name or 'base'}"

    def record(self, name: str) -> DeviceRecord:
        """Raises NoSuchLayer, also for one whose removal was asked for; CorruptRecord when its file is damaged."""
        record = self.records.get(name)
        if record is None or record.deleted:
            if name in self.damaged:
                raise CorruptRecord(self.damaged[name], hint="remove the image or container it belongs to")
            raise NoSuchLayer(f"no such layer in devicemapper: {name or 'base'}")
        return record

    def deleted(self) -> list[str]:
        """The devices whose removal is still to be done."""
        with self._lock:
            return [name for name, record in self.records.items() if record.deleted]

    # --- changes ---------------------------------------------------------------------------------------------------

    def create_base(self, size_bytes: int) -> None:
        """Make the empty base device."""
        with self._lock:
            self._create(BASE, size_bytes, self.pool.create_thin)

    def snapshot(self, name: str, origin: str) -> None:
        """Make a device that shows what `origin` shows.

        Raises:
            AlreadyExists: the name is taken. NoSuchLayer: there is no such origin.
            StorageFull: too little of the pool is free.
        """
        with self._lock:
            record = self.record(origin)
            if name in self.records or name in self.damaged:
                going = name in self.records and self.records[name].deleted
                raise AlreadyExists(f"layer {name} exists{', its removal is not finished' if going else ''}")
            check_room(self.pool, self._options.min_free_percent, f"layer {name}")
            with self._held_still(origin):
                self._create(
                    name, record.size_bytes, lambda number: self.pool.create_snapshot(number, record.device_id)
                )

    def delete(self, name: str, *, at_once: bool = False, discards: bool = True) -> bool:
        """Remove a device; False when it is busy, and its removal is put down for later.

        Without `discards` its blocks are free in the pool alone, which uses them again before others.

        Raises:
            LayerInUse: it is busy, and `at_once` or the options forbid to put it off.
        """
        record = self.records[name]
        if discards and self._options.discards_blocks:
            self._discard(name, record)
        defers = self._options.deferred_deletion and not at_once
        self._deactivate(name, deferred=self._options.deferred_removal and defers)
        with self._lock:
            number = self._begin(name, record.device_id)
            gone = self._delete_in_pool(name, record, defers=defers)
            if gone:
                self.metadata.forget_device(name)
                del self.records[name]
            else:
                self._mark_deleted(name)
            self._commit(number)
            return gone

    def forget(self, name: str) -> None:
        """Drop a record that stands for nothing: a damaged one, or one whose device the pool has lost."""
        with self._lock:
            self.metadata.forget_device(name)
            self.damaged.pop(name, None)
            self.records.pop(name, None)

    def resize(self, name: str, size_bytes: int) -> None:
        """Let the device have `size_bytes`; an active one gets its new size at once."""
        with self._lock:
            record = replace(self.record(name), size_bytes=size_bytes)
            self._keep(name, record)
        kernel_name = self.kernel_name(name)
        if self._mapper.find(kernel_name) is not None:
            self._mapper.load(kernel_name, [self.pool.thin(record.device_id, size_bytes // SECTOR)])
            self._mapper.suspend(kernel_name)
            self._mapper.resume(kernel_name)

    def mark_initialized(self, name: str) -> None:
        with self._lock:
            self._keep(name, replace(self.record(name), initialized=True))

    # --- activation ------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Device | None:
        """The device if it is active."""
        return self._mapper.find(self.kernel_name(name))

    def activate(self, name: str) -> Device:
        """Make the device usable. Again is fine, also while its removal was deferred.

        Raises:
            CorruptRecord: the pool does not have it.
        """
        return self._activate(name, self.record(name))

    def deactivate(self, name: str) -> None:
        """The device goes, now or (deferred removal) when its last user closes it. Not active is fine."""
        self._deactivate(name, deferred=self._options.deferred_removal)

    @contextmanager
    def active(self, name: str) -> Iterator[Device]:
        """The device for the length of a `with` block; one that was active before stays so."""
        before = self.find(name)
        device = self.activate(name)
        try:
            yield device
        finally:
            if before is None or before.goes_when_closed:
                self.deactivate(name)

    def _activate(self, name: str, record: DeviceRecord) -> Device:
        kernel_name = self.kernel_name(name)
        for _ in range(_RACE_TRIES):
            device = self._mapper.find(kernel_name)
            try:
                if device is not None and device.goes_when_closed:
                    self._mapper.cancel_deferred_removal(kernel_name)
                if device is not None:
                    return replace(device, goes_when_closed=False)
                return self._mapper.create(kernel_name, [self.pool.thin(record.device_id, record.size_bytes // SECTOR)])
            except OSError as error:
                if error.errno == errno.ENODATA:
                    raise CorruptRecord(
                        f"layer {name or 'base'} is lost: the thin pool {self.pool.name} has no device "
                        f"{record.device_id}",
                        hint="remove the image or container it belongs to",
                    ) from error
                if error.errno not in {errno.ENXIO, errno.EBUSY}:
                    raise
                time.sleep(0.01)  # it is going this moment, or another thread makes it
        raise LayerInUse(f"the device {kernel_name} is going away, and does not")

    def _deactivate(self, name: str, *, deferred: bool) -> None:
        kernel_name = self.kernel_name(name)
        for attempt in range(_BUSY_TRIES):
            try:
                self._mapper.remove(kernel_name, deferred=deferred)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno != errno.EBUSY or attempt == _BUSY_TRIES - 1:
                    raise LayerInUse(f"the device {kernel_name} cannot be removed: {error.strerror}") from error
                time.sleep(_BUSY_WAIT_S)
            else:
                return

    def _discard(self, name: str, record: DeviceRecord) -> None:
        """Give the blocks back to what the pool stands on; the pool itself would only mark them as free."""
        try:
            device = self._activate(name, record)
            if device.users:
                return
            self._mark_deleted(name)
            fd = os.open(device.node, os.O_WRONLY | os.O_CLOEXEC)
        except (OSError, CorruptRecord, LayerInUse):
            return  # nothing is wrong with the deletion itself
        try:
            with suppress(OSError):  # a device below that knows no discards
                fcntl.ioctl(fd, _BLKDISCARD, struct.pack("=QQ", 0, record.size_bytes))
        finally:
            os.close(fd)

    # --- transactions; the lock is held ----------------------------------------------------------------------------

    def _create(self, name: str, size_bytes: int, make: Callable[[int], None]) -> None:
        device_id = self._free_id()
        number = self._begin(name, device_id)
        while True:
            try:
                make(device_id)
                break
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            device_id = self._free_id()  # one that no record tells of: never took part in anything
            self._begin(name, device_id)
        try:
            self._keep(name, DeviceRecord(device_id, size_bytes, number))
            self._commit(number)
        except BaseException:
            self.records.pop(name, None)
            self.metadata.forget_device(name)
            with suppress(OSError):
                self.pool.delete(device_id)
            raise

    def _begin(self, name: str, device_id: int) -> int:
        """Open a transaction; its number."""
        self.metadata.write_transaction(Transaction(self.transaction_id + 1, name, device_id))
        return self.transaction_id + 1

    def _commit(self, number: int) -> None:
        self.pool.set_transaction(self.transaction_id, number)
        self.transaction_id = number

    def _keep(self, name: str, record: DeviceRecord) -> None:
        self.metadata.write_device(name, record)
        self.records[name] = record

    def _mark_deleted(self, name: str) -> None:
        """From now on the layer is gone for everybody, and its removal is finished at the latest at the next start.

        Before its blocks are discarded, or a crash would leave a layer full of holes. What is discarded of a loop file
        reaches the disk after this does; a device below is told at once, so it has to be there first.
        """
        with self._lock:
            record = self.records[name]
            if not record.deleted:
                self._keep(name, replace(record, deleted=True))
                if self._options.discards:
                    self.metadata.sync()

    def _delete_in_pool(self, name: str, record: DeviceRecord, *, defers: bool) -> bool:
        """Raises LayerInUse when it is busy and that may not be put off."""
        try:
            self.pool.delete(record.device_id)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if not defers:
                raise LayerInUse(f"the device {self.kernel_name(name)} is in use") from error
            return False
        return True

    def _free_id(self) -> int:
        """The next number that no record has, upwards and around. Numbers have 24 bits."""
        taken = {record.device_id for record in self.records.values()}
        for _ in range(MOST_DEVICE_ID):
            self.next_device_id = (self.next_device_id + 1) & MOST_DEVICE_ID
            if self.next_device_id not in taken:
                return self.next_device_id
        raise LayerInUse("all 16 million device numbers of the thin pool are taken")

    @contextmanager
    def _held_still(self, name: str) -> Iterator[None]:
        """No writes reach the device meanwhile, and a file system on it is whole."""
        kernel_name = self.kernel_name(name)
        device = self._mapper.find(kernel_name)
        if device is None:
            yield
            return
        try:
            if device.goes_when_closed:  # else it could go while it is suspended
                self._mapper.cancel_deferred_removal(kernel_name)
            self._mapper.suspend(kernel_name)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            yield  # it has just gone
            return
        try:
            yield
        finally:
            with suppress(OSError):
                self._mapper.resume(kernel_name)
            if device.goes_when_closed:
                self._deactivate(name, deferred=True)


def loop_node(number: str) -> Path:
    """`/dev/loop3` for 7:3, else the kernel's own name of the block device."""
    place = Path(f"/sys/dev/block/{number}/uevent")
    with suppress(OSError):
        for line in place.read_text(encoding="ascii").splitlines():
            if line.startswith("DEVNAME="):
                return Path("/dev", line.removeprefix("DEVNAME="))
    return Path("/dev/block", number)
