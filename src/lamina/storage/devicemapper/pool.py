"""A thin pool: what it says of itself, and the messages that change it (blocking).

Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst; drivers/md/dm-thin-metadata.c for the superblock.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import Conflict, CorruptRecord, StorageFull
from lamina.kernel.devicemapper import Device, DeviceMapper
from lamina.kernel.dm_ioctl import SECTOR, Target

METADATA_BLOCK = 4096
LOW_WATER_BLOCKS = 32768
"""Free blocks below which the kernel tells whoever watches the pool; the number Docker uses."""

_MAGIC = 27022010
_NEEDS_CHECK = 1


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Counts of blocks: metadata blocks of 4 KiB, data blocks of the pool's own size.

    `mode` is `rw`, `ro` or `out_of_data_space`.
    """

    transaction_id: int
    metadata_used: int
    metadata_total: int
    data_used: int
    data_total: int
    mode: str
    needs_check: bool


@dataclass(frozen=True, slots=True)
class ThinSuperblock:
    """The first block of a pool's metadata device."""

    transaction_id: int
    block_sectors: int
    needs_check: bool


def parse_status(params: str) -> PoolStatus:
    """The status line of a thin pool.

    Raises:
        CorruptRecord: the kernel has given the pool up (`Fail`, `Error`), or says what nobody knows.
    """
    words = params.split()
    try:
        used, _, total = words[1].partition("/")
        data_used, _, data_total = words[2].partition("/")
        return PoolStatus(
            int(words[0]), int(used), int(total), int(data_used), int(data_total), words[4], "needs_check" in words[5:]
        )
    except (IndexError, ValueError) as error:
        raise CorruptRecord(
            f"the kernel has given the thin pool up: its status is {params.strip()!r}",
            hint="see dmesg; repair the metadata device with thin_check and thin_repair",
        ) from error


def read_thin_superblock(device: Path) -> ThinSuperblock | None:
    """What the metadata device says before a pool is made of it; None for an empty one (all zeros).

    Raises:
        CorruptRecord: neither empty nor a pool's metadata.
    """
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, METADATA_BLOCK, 0)
    finally:
        os.close(fd)
    if not any(head):
        return None
    if len(head) < METADATA_BLOCK or struct.unpack_from("<Q", head, 32)[0] != _MAGIC:
        raise CorruptRecord(
            f"{device} does not hold the metadata of a thin pool",
            hint="a new metadata device must be zeroed: dd if=/dev/zero of=DEVICE bs=4096 count=1",
        )
    flags, transaction_id = struct.unpack_from("<I", head, 4)[0], struct.unpack_from("<Q", head, 48)[0]
    return ThinSuperblock(transaction_id, struct.unpack_from("<I", head, 336)[0], bool(flags & _NEEDS_CHECK))


def pool_table(metadata: str, data: str, data_sectors: int, block_sectors: int) -> list[Target]:
    """The table Docker gives its pools; devices as major:minor."""
    params = f"{metadata} {data} {block_sectors} {LOW_WATER_BLOCKS} 1 skip_block_zeroing"
    return [Target(0, data_sectors, "thin-pool", params)]


class Pool:
    """An active pool. The caller serialises changes."""

    def __init__(self, mapper: DeviceMapper, device: Device) -> None:
        self._mapper = mapper
        self.name = device.name
        self.number = device.number
        target = mapper.table(device.name)[0]
        self.metadata_number, self.data_number, self._block_sectors = _parts(target)

    @property
    def block_bytes(self) -> int:
        return self._block_sectors * SECTOR

    def status(self) -> PoolStatus:
        """As it is now; nothing is written. Raises CorruptRecord when the kernel has given the pool up."""
        return parse_status(self._mapper.status(self.name)[0].params)

    def flush(self) -> None:
        """Put on disk what the pool knows, and the data before it."""
        self._mapper.status(self.name, flush=True)

    def create_thin(self, device_id: int) -> None:
        """Make an empty device. Raises OSError EEXIST when the number is taken."""
        self._change(f"create_thin {device_id}")

    def create_snapshot(self, device_id: int, origin: int) -> None:
        """Make a device that shows what `origin` shows now; an active origin must be suspended meanwhile."""
        self._change(f"create_snap {device_id} {origin}")

    def delete(self, device_id: int) -> bool:
        """Delete a device; False when there was none. Raises OSError EBUSY when it is active."""
        try:
            self._change(f"delete {device_id}")
        except OSError as error:
            if error.errno == errno.ENODATA:
                return False
            raise
        return True

    def set_transaction(self, old: int, new: int) -> None:
        """Move the pool's transaction number on.

        Raises:
            Conflict: it is not `old`: somebody else changes this pool.
        """
        try:
            self._change(f"set_transaction_id {old} {new}")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Conflict(
                f"the thin pool {self.name} is at transaction {self.status().transaction_id}, not {old}: "
                "another store changes it at the same time",
                hint="two data roots must not share a thin pool; stop the other daemon",
            ) from error

    def holds(self, device_id: int, probe_name: str) -> bool:
        """Whether the pool has this device. Asked by giving a table to a nameless-to-be device, which is removed."""
        try:
            self._mapper.create(probe_name, [self.thin(device_id, 8)])
        except OSError as error:
            if error.errno == errno.ENODATA:
                return False
            if error.errno != errno.EBUSY:
                raise
            return True
        self._mapper.remove(probe_name, deferred=True)
        return True

    def thin(self, device_id: int, sectors: int) -> Target:
        """The table line of one of the pool's devices."""
        return Target(0, sectors, "thin", f"{self.number} {device_id}")

    def _change(self, message: str) -> None:
        try:
            self._mapper.message(self.name, message)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFull(f"the thin pool {self.name} has no room left for metadata") from error
            if error.errno in {errno.EOPNOTSUPP, errno.EIO, errno.EROFS}:
                raise CorruptRecord(
                    f"the thin pool {self.name} takes no changes: {_verdict(self)}",
                    hint="see dmesg; free space for it, or repair its metadata with thin_check and thin_repair",
                ) from error
            raise


def check_room(pool: Pool, percent: int, what: str) -> None:
    """Refuse a new device when less than `percent` of the pool's data or metadata is free; 0 refuses never.

    Raises:
        StorageFull: says how much is free, and how much there should be.
    """
    if not percent:
        return
    status = pool.status()
    for kind, used, total in (
        ("data", status.data_used, status.data_total),
        ("metadata", status.metadata_used, status.metadata_total),
    ):
        least = max(1, total * percent // 100)
        if total - used < least:
            raise StorageFull(
                f"no room for {what}: thin pool {pool.name} has {total - used} free {kind} blocks, which is less than "
                f"the minimum of {least}",
                hint="remove images or containers, extend the pool, or lower --storage-opt dm.min_free_space",
            )


def _parts(target: Target) -> tuple[str, str, int]:
    words = target.params.split()
    if target.kind != "thin-pool" or len(words) < 3:
        raise Conflict(f"the device is a {target.kind}, not a thin pool")
    return words[0], words[1], int(words[2])


def _verdict(pool: Pool) -> str:
    try:
        status = pool.status()
    except CorruptRecord as error:
        return str(error)
    return f"it is {status.mode}{', and its metadata needs a check' if status.needs_check else ''}"
